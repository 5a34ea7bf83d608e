"""CIFAR-10, NCSN++, SMLD chain. Song et al. 2021: FID 2.45, IS 9.73.

python main.py --mode=train --workdir=runs/ve_cifar10_ncsnpp --config=configs/ve/cifar10_ncsnpp.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.ve import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.discrete(cifar10.ncsnpp(), sigma_max=50.0)

r"""CIFAR-10, NCSN++, VE SDE. Song et al. 2021: FID 2.38, IS 9.83.

python main.py --mode=train --workdir=runs/ve_cifar10_ncsnpp_continuous \
    --config=configs/ve/cifar10_ncsnpp_continuous.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.ve import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(cifar10.ncsnpp(), sigma_max=50.0)

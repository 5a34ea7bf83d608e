"""CIFAR-10, DDPM, SMLD chain.

python main.py --mode=train --workdir=runs/ve_cifar10_ddpm --config=configs/ve/cifar10_ddpm.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.ve import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.discrete(cifar10.ddpm(), sigma_max=50.0)

"""CIFAR-10, DDPM++, DDPM's chain. Song et al. 2021: FID 2.78, IS 9.64.

python main.py --mode=train --workdir=runs/vp_cifar10_ddpmpp --config=configs/vp/cifar10_ddpmpp.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.vp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.discrete(cifar10.ddpmpp())

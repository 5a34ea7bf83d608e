r"""CIFAR-10, DDPM++ (deep), sub-VP SDE.

Song et al. 2021: FID 2.41, IS 9.57; 2.99 bits/dim, FID 2.92 by the ODE.

python main.py --mode=train --workdir=runs/subvp_cifar10_ddpmpp_deep_continuous \
    --config=configs/subvp/cifar10_ddpmpp_deep_continuous.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.subvp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(cifar10.deep(cifar10.ddpmpp()))

r"""CIFAR-10, DDPM++, sub-VP SDE.

Song et al. 2021: FID 2.61, IS 9.56; 3.02 bits/dim, FID 3.16 by the ODE.

python main.py --mode=train --workdir=runs/subvp_cifar10_ddpmpp_continuous \
    --config=configs/subvp/cifar10_ddpmpp_continuous.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.subvp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(cifar10.ddpmpp())

r"""CIFAR-10, DDPM++ (deep), VP SDE.

Song et al. 2021: FID 2.41, IS 9.68; 3.13 bits/dim, FID 3.08 by the ODE.

python main.py --mode=train --workdir=runs/vp_cifar10_ddpmpp_deep_continuous \
    --config=configs/vp/cifar10_ddpmpp_deep_continuous.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.vp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(cifar10.deep(cifar10.ddpmpp()))

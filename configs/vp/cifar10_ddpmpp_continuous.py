r"""CIFAR-10, DDPM++, VP SDE.

Song et al. 2021: FID 2.55, IS 9.58; 3.16 bits/dim, FID 3.93 by the ODE.

python main.py --mode=train --workdir=runs/vp_cifar10_ddpmpp_continuous \
    --config=configs/vp/cifar10_ddpmpp_continuous.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.vp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(cifar10.ddpmpp())

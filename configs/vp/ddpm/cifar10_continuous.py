r"""CIFAR-10, DDPM, VP SDE. Song et al. 2021: 3.21 bits/dim, FID 3.69 by the ODE.

python main.py --mode=train --workdir=runs/vp_ddpm_cifar10_continuous \
    --config=configs/vp/ddpm/cifar10_continuous.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.vp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(cifar10.ddpm())

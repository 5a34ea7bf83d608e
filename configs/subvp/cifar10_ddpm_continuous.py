r"""CIFAR-10, DDPM, sub-VP SDE. Song et al. 2021: 3.05 bits/dim, FID 3.56 by the ODE.

python main.py --mode=train --workdir=runs/subvp_cifar10_ddpm_continuous \
    --config=configs/subvp/cifar10_ddpm_continuous.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.subvp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(cifar10.ddpm())

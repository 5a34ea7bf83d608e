r"""CIFAR-10, DDPM that is not told the noise level, DDPM's chain.

python main.py --mode=train --workdir=runs/vp_ddpm_cifar10_unconditional \
    --config=configs/vp/ddpm/cifar10_unconditional.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.vp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = base.discrete(cifar10.ddpm())
    config.model.conditional = False
    return config

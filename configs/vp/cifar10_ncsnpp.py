"""CIFAR-10, NCSN++, DDPM's chain.

python main.py --mode=train --workdir=runs/vp_cifar10_ncsnpp --config=configs/vp/cifar10_ncsnpp.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.vp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = base.discrete(cifar10.ncsnpp())
    config.sampling.predictor = 'reverse_diffusion'
    return config

r"""CIFAR-10, NCSN++, sub-VP SDE.

python main.py --mode=train --workdir=runs/subvp_cifar10_ncsnpp_continuous \
    --config=configs/subvp/cifar10_ncsnpp_continuous.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.subvp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(cifar10.ncsnpp())

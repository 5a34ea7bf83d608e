r"""CIFAR-10, NCSN++ (deep), sub-VP SDE.

python main.py --mode=train --workdir=runs/subvp_cifar10_ncsnpp_deep_continuous \
    --config=configs/subvp/cifar10_ncsnpp_deep_continuous.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.subvp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(cifar10.deep(cifar10.ncsnpp()))

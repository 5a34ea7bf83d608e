"""CIFAR-10, NCSN. Song & Ermon 2019: FID 25.32, IS 8.87.

Repaired: the published file names no number of classes.

python main.py --mode=train --workdir=runs/ve_ncsn_cifar10 --config=configs/ve/ncsn/cifar10.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.ve.ncsn import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.plain(cifar10.get_config())

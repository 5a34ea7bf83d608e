"""CIFAR-10, NCSN++ with the preconditioning of EDM.

Karras et al. 2022: FID 1.98 with 35 evaluations, with their augmentation.

python main.py --mode=train --workdir=runs/edm_cifar10_ncsnpp --config=configs/edm/cifar10_ncsnpp.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.edm import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.cifar10(base.ncsnpp(cifar10.ncsnpp()))

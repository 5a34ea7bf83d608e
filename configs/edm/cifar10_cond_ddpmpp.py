r"""CIFAR-10, class-conditional, DDPM++ with the preconditioning of EDM.

Karras et al. 2022: FID 1.79 with 35 evaluations, with their augmentation.

python main.py --mode=train --workdir=runs/edm_cifar10_cond_ddpmpp \
    --config=configs/edm/cifar10_cond_ddpmpp.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.edm import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = base.cifar10(base.ddpmpp(cifar10.ddpmpp()))
    config.model.num_classes = 10
    return config

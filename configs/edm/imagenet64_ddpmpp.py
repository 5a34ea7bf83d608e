r"""ImageNet at 64 pixels, class-conditional, DDPM++ with the preconditioning of EDM.

Hyper-parameters, width and depth are those that Karras et al. 2022 train ADM with, a network of
another kind (imagenet64_adm.py).

python main.py --mode=train --workdir=runs/edm_imagenet64_ddpmpp \
    --config=configs/edm/imagenet64_ddpmpp.py
"""

from ml_collections import ConfigDict

from configs import base as defaults
from configs.edm import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.imagenet64(base.ddpmpp(defaults.get_config()))

"""FFHQ at 64 pixels, NCSN++ with the preconditioning of EDM.

Karras et al. 2022: FID 2.53 with 79 evaluations, with their augmentation.

Put the images into data/ffhq, or set --config.data.source=folder:PATH.

python main.py --mode=train --workdir=runs/edm_ffhq64_ncsnpp --config=configs/edm/ffhq64_ncsnpp.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.edm import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.faces(base.ncsnpp(cifar10.ncsnpp()), 'folder:data/ffhq', dropout=0.05)

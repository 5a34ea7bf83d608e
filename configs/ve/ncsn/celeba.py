"""CelebA at 64 pixels, NCSN.

Repaired: the published file names no number of classes, and sets training.loss for training.sde.

python main.py --mode=train --workdir=runs/ve_ncsn_celeba --config=configs/ve/ncsn/celeba.py
"""

from ml_collections import ConfigDict

from configs import celeba
from configs.ve.ncsn import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.plain(celeba.get_config())

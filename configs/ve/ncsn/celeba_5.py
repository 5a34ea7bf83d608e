"""CelebA at 64 pixels, NCSN with technique 5 of NCSNv2: the moving average.

Repaired: the published file names no number of classes.

python main.py --mode=train --workdir=runs/ve_ncsn_celeba_5 --config=configs/ve/ncsn/celeba_5.py
"""

from ml_collections import ConfigDict

from configs import celeba
from configs.ve.ncsn import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.technique_5(base.plain(celeba.get_config()))

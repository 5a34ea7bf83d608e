"""CelebA at 64 pixels, NCSN with techniques 1, 2 and 4 of NCSNv2: its levels and Langevin steps.

Repaired: the published file names no number of classes.

python main.py --mode=train --workdir=runs/ve_ncsn_celeba_124 --config=configs/ve/ncsn/celeba_124.py
"""

from ml_collections import ConfigDict

from configs import celeba
from configs.ve.ncsn import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = base.techniques_124(celeba.get_config(), sigma_max=90.0, num_scales=500)
    config.sampling.snr = 0.128
    return config

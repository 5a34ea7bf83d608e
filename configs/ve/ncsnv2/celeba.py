"""CelebA at 64 pixels, NCSNv2.

python main.py --mode=train --workdir=runs/ve_ncsnv2_celeba --config=configs/ve/ncsnv2/celeba.py
"""

from ml_collections import ConfigDict

from configs import celeba
from configs.ve.ncsnv2 import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = base.ncsnv2(celeba.get_config(), 'ncsnv2_64', sigma_max=90.0, num_scales=500)
    config.sampling.snr = 0.128
    return config

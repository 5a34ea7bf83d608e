"""LSUN bedrooms at 128 pixels, NCSNv2.

Repaired: the published file misspells training.continuous, and so trains with the loss of the SDE.

python main.py --mode=train --workdir=runs/ve_ncsnv2_bedroom --config=configs/ve/ncsnv2/bedroom.py
"""

from ml_collections import ConfigDict

from configs import large
from configs.ve.ncsnv2 import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = large.get_config('lsun/bedroom')
    config = base.ncsnv2(config, 'ncsnv2_128', sigma_max=190.0, num_scales=1086)
    config.data.image_size = (128, 128)
    config.training.batch_size = 128
    config.optim.ema_rate = 0.9999
    config.sampling.corrector_steps = 3
    config.sampling.snr = 0.095
    return config

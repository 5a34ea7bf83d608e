r"""FFHQ at 1024 pixels, NCSN++, VE SDE.

Put the images into data/ffhq, or set --config.data.source=folder:PATH. Repaired: the published file
imports PyTorch, and has neither the steps of a dispatch nor what is to be evaluated.

python main.py --mode=train --workdir=runs/ve_ffhq_ncsnpp_continuous \
    --config=configs/ve/ffhq_ncsnpp_continuous.py
"""

from ml_collections import ConfigDict

from configs import large
from configs.ve import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = base.continuous(large.ncsnpp_1024(large.FFHQ), sigma_max=1348.0)
    config.training.reduce_mean = True
    config.optim.ema_rate = 0.9999
    return config

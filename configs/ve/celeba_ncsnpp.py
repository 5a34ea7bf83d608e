"""CelebA at 64 pixels, NCSN++, SMLD chain.

FID 2.5, as its author wrote (github.com/yang-song/score_sde, issue 10).

python main.py --mode=train --workdir=runs/ve_celeba_ncsnpp --config=configs/ve/celeba_ncsnpp.py
"""

from ml_collections import ConfigDict

from configs import celeba
from configs.ve import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = celeba.get_config()
    config.model.fir = True
    config.model.progressive_input = 'residual'
    return base.discrete(config, sigma_max=90.0)

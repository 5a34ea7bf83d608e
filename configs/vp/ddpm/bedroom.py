"""LSUN bedrooms at 256 pixels, DDPM, DDPM's chain. Ho et al. 2020: FID 6.36.

python main.py --mode=train --workdir=runs/vp_ddpm_bedroom --config=configs/vp/ddpm/bedroom.py
"""

from ml_collections import ConfigDict

from configs import large
from configs.vp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.discrete(large.ddpm_256('lsun/bedroom'))

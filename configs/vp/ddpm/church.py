"""LSUN churches at 256 pixels, DDPM, DDPM's chain. Ho et al. 2020: FID 7.89.

python main.py --mode=train --workdir=runs/vp_ddpm_church --config=configs/vp/ddpm/church.py
"""

from ml_collections import ConfigDict

from configs import large
from configs.vp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.discrete(large.ddpm_256('lsun/church_outdoor'))

r"""LSUN bedrooms at 256 pixels, NCSN++, VE SDE.

python main.py --mode=train --workdir=runs/ve_bedroom_ncsnpp_continuous \
    --config=configs/ve/bedroom_ncsnpp_continuous.py
"""

from ml_collections import ConfigDict

from configs import large
from configs.ve import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(large.ncsnpp_256('lsun/bedroom'), sigma_max=378.0)

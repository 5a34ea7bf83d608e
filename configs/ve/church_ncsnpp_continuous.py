r"""LSUN churches at 256 pixels, NCSN++, VE SDE.

python main.py --mode=train --workdir=runs/ve_church_ncsnpp_continuous \
    --config=configs/ve/church_ncsnpp_continuous.py
"""

from ml_collections import ConfigDict

from configs import large
from configs.ve import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(large.ncsnpp_256('lsun/church_outdoor'), sigma_max=380.0)

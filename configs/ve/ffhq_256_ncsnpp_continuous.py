r"""FFHQ at 256 pixels, NCSN++, VE SDE.

Put the images into data/ffhq, or set --config.data.source=folder:PATH.

python main.py --mode=train --workdir=runs/ve_ffhq_256_ncsnpp_continuous \
    --config=configs/ve/ffhq_256_ncsnpp_continuous.py
"""

from ml_collections import ConfigDict

from configs import large
from configs.ve import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.continuous(large.ncsnpp_256(large.FFHQ), sigma_max=348.0)

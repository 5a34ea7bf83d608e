"""CelebA-HQ at 256 pixels, DDPM, DDPM's chain.

Put the images into data/celebahq, or set --config.data.source=folder:PATH.

python main.py --mode=train --workdir=runs/vp_ddpm_celebahq --config=configs/vp/ddpm/celebahq.py
"""

from ml_collections import ConfigDict

from configs import large
from configs.vp import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    return base.discrete(large.ddpm_256(large.CELEBAHQ))

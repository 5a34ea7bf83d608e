r"""CelebA-HQ at 1024 pixels, NCSN++, VE SDE.

Put the images into data/celebahq, or set --config.data.source=folder:PATH. Repaired: the published
file imports PyTorch, and has neither the steps of a dispatch nor what is to be evaluated.

python main.py --mode=train --workdir=runs/ve_celebahq_ncsnpp_continuous \
    --config=configs/ve/celebahq_ncsnpp_continuous.py
"""

from ml_collections import ConfigDict

from configs import large
from configs.ve import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = base.continuous(large.ncsnpp_1024(large.CELEBAHQ), sigma_max=1348.0)
    config.optim.ema_rate = 0.9999
    return config

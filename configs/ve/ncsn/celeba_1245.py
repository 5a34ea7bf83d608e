r"""CelebA at 64 pixels, NCSN with techniques 1, 2, 4 and 5 of NCSNv2: all but its network.

Repaired: the published file names no number of classes.

python main.py --mode=train --workdir=runs/ve_ncsn_celeba_1245 \
    --config=configs/ve/ncsn/celeba_1245.py
"""

from ml_collections import ConfigDict

from configs import celeba
from configs.ve.ncsn import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = base.techniques_124(celeba.get_config(), sigma_max=90.0, num_scales=500)
    config.sampling.snr = 0.128
    return base.technique_5(config)

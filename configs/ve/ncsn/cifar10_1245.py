r"""CIFAR-10, NCSN with techniques 1, 2, 4 and 5 of NCSNv2: all but its network.

Repaired: the published file names no number of classes.

python main.py --mode=train --workdir=runs/ve_ncsn_cifar10_1245 \
    --config=configs/ve/ncsn/cifar10_1245.py
"""

from ml_collections import ConfigDict

from configs import cifar10
from configs.ve.ncsn import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = base.techniques_124(cifar10.get_config(), sigma_max=50.0, num_scales=232)
    config.sampling.snr = 0.176
    return base.technique_5(config)

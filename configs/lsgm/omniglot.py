r"""Binarised OMNIGLOT, LSGM at its published size: 3 groups of 20 channels at 16 x 16.

The second stage, autoencoder and prior together, begins with the first one, which
configs/lsgm/omniglot_autoencoder.py is.

python main.py --mode=train --workdir=runs/lsgm_omniglot --config=configs/lsgm/omniglot.py \
    --config.training.init_from=runs/lsgm_omniglot_autoencoder

Vahdat et al. 2021: at most 87.79 nats.
It was not trained here; configs/lsgm/base.py says what differs.
"""

from configs.lsgm import base


def get_config():
    """The second stage."""
    return base.joint(base.omniglot(), 24_345, 128, 1500, spectral=(1e-2, 1e-3))

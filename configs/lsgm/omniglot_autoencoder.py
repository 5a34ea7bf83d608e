r"""Binarised OMNIGLOT, LSGM at its published size: 3 groups of 20 channels at 16 x 16.

The first stage: the autoencoder, with codes N(0, I).

python main.py --mode=train --workdir=runs/lsgm_omniglot_autoencoder \
    --config=configs/lsgm/omniglot_autoencoder.py

The second is configs/lsgm/omniglot.py.
It was not trained here; configs/lsgm/base.py says what differs.
"""

from configs.lsgm import base


def get_config():
    """The first stage."""
    return base.autoencoder(base.omniglot(), 24_345, 128, 200)

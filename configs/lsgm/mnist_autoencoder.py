r"""Binarised MNIST, LSGM at its published size: 2 groups of 20 channels at 8 x 8.

The first stage: the autoencoder, with codes N(0, I).

python main.py --mode=train --workdir=runs/lsgm_mnist_autoencoder \
    --config=configs/lsgm/mnist_autoencoder.py

The second is configs/lsgm/mnist.py.
It was not trained here; configs/lsgm/base.py says what differs.
"""

from configs.lsgm import base


def get_config():
    """The first stage."""
    return base.autoencoder(base.mnist(), 60_000, 200, 200, kl_end=base.PARTIAL)

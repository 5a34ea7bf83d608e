r"""Binarised MNIST, LSGM at its published size: 2 groups of 20 channels at 8 x 8.

The second stage, autoencoder and prior together, begins with the first one, which
configs/lsgm/mnist_autoencoder.py is.

python main.py --mode=train --workdir=runs/lsgm_mnist --config=configs/lsgm/mnist.py \
    --config.training.init_from=runs/lsgm_mnist_autoencoder

Vahdat et al. 2021: at most 78.47 nats.
It was not trained here; configs/lsgm/base.py says what differs.
"""

from configs.lsgm import base


def get_config():
    """The second stage."""
    return base.joint(base.mnist(), 60_000, 128, 800)

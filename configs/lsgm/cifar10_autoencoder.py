r"""CIFAR-10, LSGM at its published size, the balanced model: 20 groups of 9 channels at 16 x 16.

The first stage: the autoencoder, with codes N(0, I).

python main.py --mode=train --workdir=runs/lsgm_cifar10_autoencoder \
    --config=configs/lsgm/cifar10_autoencoder.py

The second is configs/lsgm/cifar10.py.
It was not trained here; configs/lsgm/base.py says what differs.
"""

from configs.lsgm import base


def get_config():
    """The first stage."""
    return base.autoencoder(base.cifar10(), 50_000, 256, 600, warmup_share=0.5)

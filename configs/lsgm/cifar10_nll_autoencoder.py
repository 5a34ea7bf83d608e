r"""CIFAR-10, LSGM at its published size, the model of likelihoods: 4 groups of 45 channels.

The first stage: the autoencoder, with codes N(0, I).

python main.py --mode=train --workdir=runs/lsgm_cifar10_nll_autoencoder \
    --config=configs/lsgm/cifar10_nll_autoencoder.py

The second is configs/lsgm/cifar10_nll.py.
It was not trained here; configs/lsgm/base.py says what differs.
"""

from configs.lsgm import base


def get_config():
    """The first stage."""
    return base.autoencoder(base.cifar10_nll(), 50_000, 256, 400, kl_end=base.PARTIAL)

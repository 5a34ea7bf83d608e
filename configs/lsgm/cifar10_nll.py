r"""CIFAR-10, LSGM at its published size, the model of likelihoods: 4 groups of 45 channels.

The second stage, autoencoder and prior together, begins with the first one, which
configs/lsgm/cifar10_nll_autoencoder.py is.

python main.py --mode=train --workdir=runs/lsgm_cifar10_nll --config=configs/lsgm/cifar10_nll.py \
    --config.training.init_from=runs/lsgm_cifar10_nll_autoencoder

Vahdat et al. 2021: FID 6.89, at most 2.87 bits/dim.
It was not trained here; configs/lsgm/base.py says what differs.
"""

from configs.lsgm import base


def get_config():
    """The second stage."""
    config = base.joint(
        base.cifar10_nll(), 50_000, 256, 1875, lr=1e-4, warmup_epochs=5, spectral=(1e-2, 1e-2)
    )
    config.training.importance = False
    config.training.t_min = 0.0
    return config

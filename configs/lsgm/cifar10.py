r"""CIFAR-10, LSGM at its published size, the balanced model: 20 groups of 9 channels at 16 x 16.

The second stage, autoencoder and prior together, begins with the first one, which
configs/lsgm/cifar10_autoencoder.py is.

python main.py --mode=train --workdir=runs/lsgm_cifar10 --config=configs/lsgm/cifar10.py \
    --config.training.init_from=runs/lsgm_cifar10_autoencoder

Vahdat et al. 2021: FID 2.17.
It was not trained here; configs/lsgm/base.py says what differs.
"""

from configs.lsgm import base


def get_config():
    """The second stage."""
    config = base.joint(
        base.cifar10(), 50_000, 256, 1875, lr=1e-4, warmup_epochs=5, is_partial=False
    )
    config.training.prior_weighting = 'sigma2'
    return config

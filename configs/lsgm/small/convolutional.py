r"""Binarised digits, a convolutional autoencoder and the prior of its codes together.

python main.py --mode=train --workdir=runs/lsgm_convolutional \
    --config=configs/lsgm/small/convolutional.py \
    --config.training.init_from=runs/lsgm_convolutional_autoencoder

docs/latent.md has what it comes to.
"""

from configs.lsgm.small import base


def get_config():
    """The second stage."""
    config = base.convolutional()
    config.training.stage = 'joint'
    config.training.num_steps = 15_000
    config.training.t_min = 0.01
    config.optim.lr = 1.5e-3
    return config

r"""Binarised digits, a convolutional autoencoder alone, with codes N(0, I).

python main.py --mode=train --workdir=runs/lsgm_convolutional_autoencoder \
    --config=configs/lsgm/small/convolutional_autoencoder.py

docs/latent.md has what it comes to. configs/lsgm/small/convolutional.py begins with it.
"""

from configs.lsgm.small import base


def get_config():
    """The first stage."""
    config = base.convolutional()
    config.training.stage = 'autoencoder'
    config.training.num_steps = 18_000
    config.training.kl_warmup = 1500
    config.optim.lr = 3e-3
    return config

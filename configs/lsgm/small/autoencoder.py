r"""Binarised digits, the autoencoder alone, with codes N(0, I): two minutes on one core.

python main.py --mode=train --workdir=runs/lsgm_autoencoder \
    --config=configs/lsgm/small/autoencoder.py

docs/latent.md has what it comes to. The other stages begin with it.
"""

from configs.lsgm.small import base


def get_config():
    """The first stage."""
    config = base.get_config()
    config.training.stage = 'autoencoder'
    config.training.num_steps = 12_000
    config.training.kl_warmup = 1000
    return config

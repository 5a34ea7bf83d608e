r"""Binarised digits, the prior alone, of the codes of a trained autoencoder.

python main.py --mode=train --workdir=runs/lsgm_prior --config=configs/lsgm/small/prior.py \
    --config.training.init_from=runs/lsgm_autoencoder

docs/latent.md has what it comes to.
"""

from configs.lsgm.small import base


def get_config():
    """The second stage, without the autoencoder."""
    config = base.get_config()
    config.training.stage = 'prior'
    config.training.num_steps = 8000
    config.training.t_min = 0.01
    return config

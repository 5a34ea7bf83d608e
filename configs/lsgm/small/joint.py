r"""Binarised digits, the autoencoder and the prior of its codes together.

python main.py --mode=train --workdir=runs/lsgm --config=configs/lsgm/small/joint.py \
    --config.training.init_from=runs/lsgm_autoencoder

docs/latent.md has what it comes to. Without training.init_from both begin at random.
"""

from configs.lsgm.small import base


def get_config():
    """The second stage."""
    config = base.get_config()
    config.training.stage = 'joint'
    config.training.num_steps = 15_000
    config.training.t_min = 0.01
    return config

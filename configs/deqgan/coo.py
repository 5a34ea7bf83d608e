"""COO, x' = -t y, y' = t x: coupled oscillators.

python main.py --mode=train --workdir=runs/coo --config=configs/deqgan/coo.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'coo'
    config.equation.points = (800,)
    config.solution.units = 40
    config.solution.blocks = 5
    config.discriminator.units = 40
    config.discriminator.blocks = 2
    config.discriminator.lr = 0.08229
    config.discriminator.beta1 = 0.4122
    config.discriminator.beta2 = 0.11
    config.training.batch_size = 800
    config.training.num_steps = 70000
    config.optim.lr = 0.00422
    config.optim.beta1 = 0.6033
    config.optim.beta2 = 0.6145
    config.optim.decay = 0.99756
    config.optim.decay_every = 16
    return config

"""HEA, u_t = u_xx: the heat equation.

python main.py --mode=train --workdir=runs/hea --config=configs/deqgan/hea.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'hea'
    config.equation.points = (32, 32)
    config.solution.units = 40
    config.solution.blocks = 4
    config.discriminator.units = 30
    config.discriminator.blocks = 2
    config.discriminator.lr = 0.00196
    config.discriminator.beta1 = 0.1203
    config.discriminator.beta2 = 0.251
    config.training.batch_size = 1024
    config.training.num_steps = 2000
    config.optim.lr = 0.01086
    config.optim.beta1 = 0.2307
    config.optim.beta2 = 0.6576
    config.optim.decay = 0.95004
    config.optim.decay_every = 10
    return config

"""EIN, the expansion of a universe with Hu-Sawicki f(R) gravity, five equations.

python main.py --mode=train --workdir=runs/ein --config=configs/deqgan/ein.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'ein'
    config.equation.points = (1000,)
    config.solution.units = 40
    config.solution.blocks = 4
    config.discriminator.units = 30
    config.discriminator.blocks = 2
    config.discriminator.lr = 0.00662
    config.discriminator.beta1 = 0.1544
    config.discriminator.beta2 = 0.7971
    config.training.batch_size = 1000
    config.training.num_steps = 50000
    config.optim.lr = 0.01177
    config.optim.beta1 = 0.203
    config.optim.beta2 = 0.9751
    config.optim.decay = 0.99637
    config.optim.decay_every = 17
    return config

"""BUR, u_t + u u_x = 0.001 u_xx: Burgers' equation.

python main.py --mode=train --workdir=runs/bur --config=configs/deqgan/bur.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'bur'
    config.equation.points = (64, 64)
    config.solution.units = 50
    config.solution.blocks = 3
    config.discriminator.units = 20
    config.discriminator.blocks = 5
    config.discriminator.lr = 0.00543
    config.discriminator.beta1 = 0.0937
    config.discriminator.beta2 = 0.1847
    config.training.batch_size = 4096
    config.training.num_steps = 3000
    config.optim.lr = 0.01274
    config.optim.beta1 = 0.1853
    config.optim.beta2 = 0.5941
    config.optim.decay = 0.95484
    config.optim.decay_every = 20
    return config

"""POS, u_xx + u_yy = f on the unit square: Poisson's equation.

python main.py --mode=train --workdir=runs/pos --config=configs/deqgan/pos.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'pos'
    config.equation.points = (32, 32)
    config.solution.units = 50
    config.solution.blocks = 4
    config.discriminator.units = 30
    config.discriminator.blocks = 2
    config.discriminator.lr = 0.02155
    config.discriminator.beta1 = 0.7457
    config.discriminator.beta2 = 0.7591
    config.training.batch_size = 1024
    config.training.num_steps = 3000
    config.optim.lr = 0.01909
    config.optim.beta1 = 0.1393
    config.optim.beta2 = 0.3697
    config.optim.decay = 0.95728
    config.optim.decay_every = 9
    return config

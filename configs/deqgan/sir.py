"""SIR, S' = -3 I S, I' = 3 I S - I, R' = I: an epidemic.

python main.py --mode=train --workdir=runs/sir --config=configs/deqgan/sir.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'sir'
    config.equation.points = (800,)
    config.solution.units = 50
    config.solution.blocks = 4
    config.discriminator.units = 50
    config.discriminator.blocks = 4
    config.discriminator.lr = 0.0124
    config.discriminator.beta1 = 0.0186
    config.discriminator.beta2 = 0.9089
    config.training.batch_size = 800
    config.training.num_steps = 20000
    config.optim.lr = 0.00629
    config.optim.beta1 = 0.2785
    config.optim.beta2 = 0.7777
    config.optim.decay = 0.99276
    config.optim.decay_every = 11
    return config

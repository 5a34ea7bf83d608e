"""SHO, x'' + x = 0: the harmonic oscillator.

python main.py --mode=train --workdir=runs/sho --config=configs/deqgan/sho.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'sho'
    config.equation.points = (400,)
    config.solution.units = 40
    config.solution.blocks = 3
    config.discriminator.units = 50
    config.discriminator.blocks = 3
    config.discriminator.lr = 0.000489
    config.discriminator.beta1 = 0.5841
    config.discriminator.beta2 = 0.4538
    config.training.batch_size = 400
    config.training.num_steps = 12000
    config.optim.lr = 0.00596
    config.optim.beta1 = 0.3632
    config.optim.beta2 = 0.7522
    config.optim.decay = 0.97862
    config.optim.decay_every = 19
    return config

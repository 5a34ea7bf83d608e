"""NLO, x'' + 0.2 x' + x + x^2 + 0.1 x^3 = 0: an oscillator that is not linear.

python main.py --mode=train --workdir=runs/nlo --config=configs/deqgan/nlo.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'nlo'
    config.equation.points = (400,)
    config.solution.units = 40
    config.solution.blocks = 4
    config.discriminator.units = 20
    config.discriminator.blocks = 2
    config.discriminator.lr = 0.02104
    config.discriminator.beta1 = 0.3627
    config.discriminator.beta2 = 0.5513
    config.training.batch_size = 400
    config.training.num_steps = 12000
    config.optim.lr = 0.01065
    config.optim.beta1 = 0.2254
    config.optim.beta2 = 0.3315
    config.optim.decay = 0.98038
    config.optim.decay_every = 15
    return config

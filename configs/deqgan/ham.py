"""HAM, x' = p, p' = -grad V: a ray through ten wells.

python main.py --mode=train --workdir=runs/ham --config=configs/deqgan/ham.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'ham'
    config.equation.points = (400,)
    config.solution.units = 40
    config.solution.blocks = 5
    config.discriminator.units = 50
    config.discriminator.blocks = 2
    config.discriminator.lr = 0.0196
    config.discriminator.beta1 = 0.1058
    config.discriminator.beta2 = 0.8695
    config.training.batch_size = 400
    config.training.num_steps = 12500
    config.optim.lr = 0.01792
    config.optim.beta1 = 0.2526
    config.optim.beta2 = 0.9314
    config.optim.decay = 0.98551
    config.optim.decay_every = 13
    return config

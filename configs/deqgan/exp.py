"""EXP, x' + x = 0: exponential decay.

python main.py --mode=train --workdir=runs/exp --config=configs/deqgan/exp.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'exp'
    config.equation.points = (100,)
    config.solution.units = 40
    config.solution.blocks = 2
    config.discriminator.units = 20
    config.discriminator.blocks = 4
    config.discriminator.lr = 0.01222
    config.discriminator.beta1 = 0.5422
    config.discriminator.beta2 = 0.2641
    config.training.batch_size = 100
    config.training.num_steps = 1200
    config.optim.lr = 0.09465
    config.optim.beta1 = 0.4914
    config.optim.beta2 = 0.3199
    config.optim.decay = 0.95003
    config.optim.decay_every = 3
    return config

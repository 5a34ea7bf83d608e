"""ACA, u_t = 0.001 u_xx + u - u^3: the Allen-Cahn equation.

python main.py --mode=train --workdir=runs/aca --config=configs/deqgan/aca.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'aca'
    config.equation.points = (64, 64)
    config.solution.units = 50
    config.solution.blocks = 2
    config.discriminator.units = 30
    config.discriminator.blocks = 2
    config.discriminator.lr = 0.01349
    config.discriminator.beta1 = 0.4843
    config.discriminator.beta2 = 0.2975
    config.training.batch_size = 4096
    config.training.num_steps = 10000
    config.optim.lr = 0.02076
    config.optim.beta1 = 0.4365
    config.optim.beta2 = 0.9105
    config.optim.decay = 0.98399
    config.optim.decay_every = 15
    return config

"""WAV, u_tt = u_xx: the wave equation.

python main.py --mode=train --workdir=runs/wav --config=configs/deqgan/wav.py

docs/deqgan.md has what it comes to. The settings are those that were published with the method.
"""

from configs.deqgan import base


def get_config():
    """The published settings."""
    config = base.get_config()
    config.equation.name = 'wav'
    config.equation.points = (32, 32)
    config.solution.units = 50
    config.solution.blocks = 4
    config.discriminator.units = 50
    config.discriminator.blocks = 2
    config.discriminator.lr = 0.08844
    config.discriminator.beta1 = 0.5752
    config.discriminator.beta2 = 0.1331
    config.training.batch_size = 1024
    config.training.num_steps = 5000
    config.optim.lr = 0.01212
    config.optim.beta1 = 0.2955
    config.optim.beta2 = 0.3582
    config.optim.decay = 0.95337
    config.optim.decay_every = 18
    return config

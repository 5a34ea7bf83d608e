"""MNIST digits, the energy of a DDPM++, VP SDE: trained for as long as the demo's score network.

python main.py --mode=train --workdir=runs/energy --config=configs/vp/mnist_energy.py

docs/energies.md has what it comes to.
"""

from configs.vp import mnist_ddpmpp


def get_config():
    """The demo's network; its score is a gradient, and so a step takes 2.2 times as long."""
    config = mnist_ddpmpp.get_config()
    config.model.energy = 'norm'
    config.training.num_steps = 520
    config.training.eval_every = 130
    config.training.sample_every = 260
    config.training.checkpoint_every = 260
    return config

"""MNIST digits, DDPM++, sub-VP SDE.

python main.py --mode=train --workdir=runs/subvp --config=configs/subvp/mnist_ddpmpp.py
"""

from configs import mnist


def get_config():
    """The MNIST base with the sub-VP SDE."""
    config = mnist.get_config()
    config.sde.name = 'subvp'
    return config

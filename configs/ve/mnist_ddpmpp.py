"""MNIST digits, DDPM++, VE SDE.

python main.py --mode=train --workdir=runs/ve --config=configs/ve/mnist_ddpmpp.py
"""

from configs import mnist


def get_config():
    """The MNIST base with the VE SDE."""
    config = mnist.get_config()
    config.sde.name = 've'
    config.sde.sigma_min = 0.001  # A bin of the 256 values is 0.008 wide.
    config.sde.sigma_max = 32.0  # About the largest distance between two digits.
    return config

"""MNIST digits, DDPM++, VP SDE.

python main.py --mode=train --workdir=runs/vp --config=configs/vp/mnist_ddpmpp.py
"""

from configs import mnist


def get_config():
    """The MNIST base with the VP SDE."""
    config = mnist.get_config()
    config.sde.name = 'vp'
    return config

"""MNIST digits, NCSN++, VE SDE.

python main.py --mode=train --workdir=runs/ve --config=configs/ve/mnist_ncsnpp.py
"""

from configs import mnist


def get_config():
    """The MNIST base with the VE SDE: the network is told sigma, and predicts the score."""
    config = mnist.get_config()
    config.data.centered = False
    config.sde.name = 've'
    config.sde.sigma_max = 16.0  # The largest distance between two digits.
    config.model.parameterization = 'score'
    config.model.scale_by_sigma = True
    config.model.embedding_type = 'fourier'
    config.model.fourier_scale = 1.0
    config.sampling.predictor = 'reverse_diffusion'
    config.sampling.corrector = 'langevin'
    config.sampling.steps = 250
    return config

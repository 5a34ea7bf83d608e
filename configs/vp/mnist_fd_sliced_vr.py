"""MNIST digits, DDPM++, VP SDE, by finite-difference sliced score matching: without a use of the
perturbation kernel but to draw states. docs/objectives.md compares it with denoising.

python main.py --mode=train --workdir=runs/sliced --config=configs/vp/mnist_fd_sliced_vr.py
"""

from configs.vp import mnist_ddpmpp


def get_config():
    """Half of the demo's steps, of twice its evaluations; noise levels count alike, because nothing
    cancels the noise at those where the edm weighting is large.
    """
    config = mnist_ddpmpp.get_config()
    config.training.objective = 'fd_sliced_vr'
    config.training.weighting = 'sigma2'
    config.training.num_steps = 600
    return config

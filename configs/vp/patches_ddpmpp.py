"""Colour patches of two photographs, 32x32, DDPM++, VP SDE: five minutes on two cores.

python -m benchmarks.gallery patches
python main.py --mode=train --workdir=runs/patches --config=configs/vp/patches_ddpmpp.py

The first command cuts the patches from the photographs that scikit-learn brings along. The network
is for pictures of inpainting, colourisation and super-resolution: it has seen two photographs.
"""

from configs import mnist


def get_config():
    """The MNIST base in colour, without what serves its likelihoods."""
    config = mnist.get_config()
    config.sde.name = 'vp'
    config.data.source = 'npz:runs/patches.npz'
    config.data.image_size = (32, 32)
    config.data.channels = 3
    config.data.random_flip = True
    config.data.dequantize = False

    config.model.attn_resolutions = (8,)
    config.model.input_fourier = ()
    config.training.num_steps = 1600
    config.training.log_sigma = (-1.0, 1.6)
    config.training.sample_every = 800
    config.training.checkpoint_every = 400
    return config

"""EDM (Karras et al. 2022, section 5 and appendix F): the base of the experiments in edm/.

Images are drawn by its sampler, Heun's method on its grid of noise levels. Of its N levels the last
step, to 0, is `sampling.denoise`, so that steps are N - 1 and evaluations 2 N - 1. Its non-leaky
augmentation is not here.
"""

from ml_collections import ConfigDict


def preconditioned(
    config: ConfigDict, batch_size: int, million_images: float, ema_million_images: float
) -> ConfigDict:
    """Preconditioning, its loss and noise levels, and a run that is counted in images.

    `ema_million_images` is the half-life of the moving average. The learning rate rises over the
    first ten million images.
    """
    config.sde.name = 'edm'
    config.sde.sigma_min = 0.002
    config.sde.sigma_max = 80.0
    config.model.parameterization = 'edm'
    config.training.weighting = 'edm'
    config.training.time_sampler = 'log_normal'
    config.training.reduce_mean = False
    config.training.batch_size = batch_size
    dispatch = config.training.steps_per_dispatch * batch_size
    dispatches = int(1e6 * million_images / dispatch)
    config.training.num_steps = dispatches * config.training.steps_per_dispatch
    config.optim.warmup = int(10e6 / batch_size)
    config.optim.grad_clip = 0.0
    config.optim.ema_rate = 0.5 ** (batch_size / (1e6 * ema_million_images))
    config.optim.ema_warmup = True
    config.sampling.method = 'heun'
    config.sampling.grid = 'karras'
    return config


def ddpmpp(config: ConfigDict) -> ConfigDict:
    """DDPM++ is told the logarithm of sigma, and classes with it."""
    config.model.embedding_type = 'log_positional'
    config.model.class_input = 'features'
    return config


def ncsnpp(config: ConfigDict) -> ConfigDict:
    """NCSN++ too, by random frequencies."""
    config.model.embedding_type = 'fourier'
    config.model.class_input = 'features'
    return config


def cifar10(config: ConfigDict) -> ConfigDict:
    """Three levels of the same width; 200 million images."""
    config = preconditioned(config, batch_size=512, million_images=200, ema_million_images=0.5)
    config.model.ch_mult = (2, 2, 2)
    config.model.dropout = 0.13
    config.optim.lr = 1e-3
    config.sampling.steps = 17
    return config


def faces(config: ConfigDict, source: str, dropout: float) -> ConfigDict:
    """Four levels for 64 pixels; 200 million images."""
    config = preconditioned(config, batch_size=256, million_images=200, ema_million_images=0.5)
    config.data.source = source
    config.data.image_size = (64, 64)
    config.model.dropout = dropout
    config.optim.lr = 2e-4
    config.sampling.steps = 39
    return config


def imagenet64(config: ConfigDict) -> ConfigDict:
    """Class-conditional, with the width and depth of ADM; 2,500 million images."""
    config = preconditioned(config, batch_size=4096, million_images=2500, ema_million_images=50)
    config.data.source = 'imagenet_resized/64x64'
    config.data.image_size = (64, 64)
    config.data.random_flip = False
    config.model.nf = 192
    config.model.ch_mult = (1, 2, 3, 4)
    config.model.num_res_blocks = 3
    config.model.attn_resolutions = (32, 16, 8)
    config.model.num_classes = 1000
    config.model.dtype = 'bfloat16'
    config.optim.lr = 1e-4
    config.sampling.steps = 39
    return config

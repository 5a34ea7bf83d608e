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


def cifar10(config: ConfigDict) -> ConfigDict:
    """Three levels of the same width; 200 million images."""
    config = preconditioned(config, batch_size=512, million_images=200, ema_million_images=0.5)
    config.model.ch_mult = (2, 2, 2)
    config.model.dropout = 0.13
    config.optim.lr = 1e-3
    config.sampling.steps = 17
    return config

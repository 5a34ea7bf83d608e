"""The VE SDE, continuous and as NCSN's chain (SMLD): the base of the experiments in ve/."""

from ml_collections import ConfigDict


def continuous(config: ConfigDict, sigma_max: float) -> ConfigDict:
    """The SDE; the network is told sigma."""
    config.sde.name = 've'
    config.sde.sigma_min = 0.01
    config.sde.sigma_max = sigma_max
    config.model.parameterization = 'score'
    config.model.embedding_type = 'fourier'
    return _published(config)


def discrete(config: ConfigDict, sigma_max: float) -> ConfigDict:
    """The chain of 1000 levels; the network is told the level."""
    return _published(chain(config, sigma_max, num_scales=1000))


def chain(config: ConfigDict, sigma_max: float, num_scales: int) -> ConfigDict:
    """The chain alone, on images in [0, 1], with the published reduction of the loss."""
    config.data.centered = False
    config.sde.name = 'smld'
    config.sde.sigma_min = 0.01
    config.sde.sigma_max = sigma_max
    config.sde.num_scales = num_scales
    config.model.parameterization = 'smld'
    config.training.time_sampler = 'levels'
    config.training.reduce_mean = False
    config.sampling.steps = num_scales
    return config


def _published(config: ConfigDict) -> ConfigDict:
    """What both have in common: data, the moving average, the sampler."""
    config.data.centered = False
    config.model.scale_by_sigma = True
    config.training.reduce_mean = False
    config.optim.ema_rate = 0.999
    config.sampling.predictor = 'reverse_diffusion'
    config.sampling.corrector = 'langevin'
    return config

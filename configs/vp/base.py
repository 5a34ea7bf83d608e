"""The VP SDE, continuous and as DDPM's chain: the base of the experiments in vp/."""

from ml_collections import ConfigDict


def continuous(config: ConfigDict) -> ConfigDict:
    """The SDE; the network is told 999 t."""
    config.sde.name = 'vp'
    config.sde.beta_min = 0.1
    config.sde.beta_max = 20.0
    config.model.parameterization = 'noise'
    config.sampling.predictor = 'euler_maruyama'
    config.sampling.t_min = 1e-3
    return config


def discrete(config: ConfigDict) -> ConfigDict:
    """The chain of 1000 levels; the network is told the level."""
    config.sde.name = 'ddpm'
    config.sde.beta_min = 0.1
    config.sde.beta_max = 20.0
    config.sde.num_scales = 1000
    config.model.parameterization = 'ddpm'
    config.training.time_sampler = 'levels'
    config.sampling.predictor = 'ancestral_fixed_large'
    config.sampling.steps = 1000
    return config

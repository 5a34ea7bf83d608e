"""CIFAR-10 at 32 pixels, and the networks of Song et al. 2021 for it: the base of the cifar10_*
experiments.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """All but the network and the SDE."""
    return base.get_config()


def ddpmpp() -> ConfigDict:
    """DDPM++, all but the SDE."""
    return get_config()


def ncsnpp() -> ConfigDict:
    """NCSN++, all but the SDE: images are resampled by a filter, and enter at every level."""
    config = get_config()
    config.model.fir = True
    config.model.progressive_input = 'residual'
    return config


def ddpm() -> ConfigDict:
    """DDPM, all but the SDE."""
    config = get_config()
    config.model = ConfigDict(base.ddpm())
    return config


def deep(config: ConfigDict) -> ConfigDict:
    """A network with twice the blocks, for fewer steps."""
    config.model.num_res_blocks = 8
    config.training.num_steps = 950_000
    return config

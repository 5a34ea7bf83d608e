"""The sub-VP SDE: the base of the experiments in subvp/."""

from ml_collections import ConfigDict

from configs.vp import base as vp


def continuous(config: ConfigDict) -> ConfigDict:
    """As with the VP SDE, whose drift it has."""
    config = vp.continuous(config)
    config.sde.name = 'subvp'
    return config

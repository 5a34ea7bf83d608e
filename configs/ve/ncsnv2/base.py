"""NCSNv2 (Song & Ermon 2020): the base of the experiments in ncsnv2/."""

from ml_collections import ConfigDict

from configs import base
from configs.ve.ncsn import base as ncsn


def ncsnv2(config: ConfigDict, network: str, sigma_max: float, num_scales: int) -> ConfigDict:
    """The network of this depth on a chain of so many levels."""
    model = {**base.ncsnv2(), 'name': network}
    config = ncsn.annealed_langevin(config, model, sigma_max, num_scales)
    config.optim.lr = 1e-4
    config.optim.ema_rate = 0.999
    return config

"""NCSN and NCSNv2: annealed Langevin dynamics on the SMLD chain, without a predictor.

The experiments in ncsn/ have NCSN's network, and of the techniques of NCSNv2 (Song & Ermon 2020)
those that their names say: 1, 2 and 4 are a higher first noise level, more levels, and steps
that go with them; 5 is the moving average. Technique 3 is NCSNv2's own network.

The published files name no number of classes for NCSN's normalisation, so that none of them runs;
here it is the number of levels.
"""

from ml_collections import ConfigDict

from configs import base
from configs.ve import base as ve


def plain(config: ConfigDict) -> ConfigDict:
    """NCSN: ten levels from 1 to 0.01, and 100 Langevin steps at each."""
    config = annealed_langevin(config, base.ncsn(), sigma_max=1.0, num_scales=10)
    config.optim.lr = 1e-3
    config.sampling.corrector_steps = 100
    config.sampling.snr = 0.316
    return config


def techniques_124(config: ConfigDict, sigma_max: float, num_scales: int) -> ConfigDict:
    """NCSN with the levels and the five Langevin steps of NCSNv2."""
    config = annealed_langevin(config, base.ncsn(), sigma_max, num_scales)
    config.optim.lr = 1e-3
    return config


def technique_5(config: ConfigDict) -> ConfigDict:
    """Samples are drawn from a moving average of the parameters."""
    config.optim.ema_rate = 0.999
    return config


def annealed_langevin(
    config: ConfigDict, model: dict, sigma_max: float, num_scales: int
) -> ConfigDict:
    """A network that knows levels, plain Adam, five Langevin steps a level."""
    config.model = ConfigDict(model)
    config = ve.chain(config, sigma_max, num_scales)
    config.optim.warmup = 0
    config.optim.grad_clip = 0.0
    config.optim.ema_rate = 0.0  # None: the average is the newest parameters.
    config.sampling.predictor = 'none'
    config.sampling.corrector = 'annealed_langevin'
    config.sampling.corrector_steps = 5
    config.sampling.denoise = False  # The published sampler does not without a predictor.
    # Between levels, which a likelihood and the ODE need, these networks know nothing.
    config.eval.bpd = False
    config.eval.samplers = ('pc',)
    return config

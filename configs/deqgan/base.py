"""Networks that solve a differential equation on the whole of its grid: what all problems share."""

from ml_collections import ConfigDict

from configs import base, fields


def get_config() -> ConfigDict:
    """All but the problem, and what was found for it."""
    config = fields.config(base.differential_equation())
    # A network of so few points is not worth splitting over devices.
    config.mesh.data = 1
    config.training.steps_per_dispatch = 50
    config.training.log_every = 100
    config.training.eval_every = 500
    config.training.checkpoint_every = 500
    config.training.keep_best = 0
    config.eval.batch_size = 512
    return config

"""Digits by SVAG, with a network that compiles in a second: for tests of the program."""

from configs.svag import digits


def get_config():
    """The experiment of digits in small."""
    config = digits.get_config()
    config.model.width = 12
    config.model.num_layers = 1
    config.training.batch_size = 8
    config.training.num_steps = 12
    config.training.steps_per_dispatch = 2
    config.training.log_every = 2
    config.training.eval_every = 6
    config.training.checkpoint_every = 4
    config.optim.substeps = 4
    config.optim.drop_at = (2,)
    config.eval.batch_size = 100
    config.eval.gradient_noise = 20
    return config

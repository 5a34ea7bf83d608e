"""A classifier of 8x8 images that compiles in seconds: for tests of the whole program."""

from configs.ve import mnist_classifier


def get_config():
    """The MNIST experiment in small; the data are given on the command line."""
    config = mnist_classifier.get_config()
    config.data.source = 'digits'
    config.data.image_size = (8, 8)
    config.model.blocks_per_group = 1
    config.model.channel_multiplier = 1
    config.model.num_classes = 4
    config.training.batch_size = 32
    config.training.num_steps = 40
    config.training.steps_per_dispatch = 5
    config.training.log_every = 10
    config.training.eval_every = 20
    config.training.checkpoint_every = 20
    config.optim.warmup = 5
    config.optim.ema_rate = 0.9
    config.eval.batch_size = 10
    config.eval.noise_levels = (0.5, 1.0)
    return config

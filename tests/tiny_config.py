"""Digits of 8x8 pixels and a network that compiles in seconds: for tests of the whole program."""

from configs import mnist


def get_config():
    """The MNIST experiment in small."""
    config = mnist.get_config()
    config.data.source = 'digits'
    config.data.image_size = (8, 8)
    config.model.nf = 8
    config.model.ch_mult = (1,)
    config.model.attn_resolutions = ()
    config.training.batch_size = 8
    config.training.num_steps = 40
    config.training.steps_per_dispatch = 2
    config.training.log_every = 4
    config.training.eval_every = 20
    config.training.sample_every = 40
    config.training.num_samples = 4
    config.training.checkpoint_every = 10
    config.optim.warmup = 4
    config.sampling.steps = 4
    config.sampling.num_samples = 6
    config.sampling.batch_size = 4
    config.sampling.rtol = config.sampling.atol = 1e-1
    config.eval.batch_size = 8
    config.eval.exhibits = False
    config.eval.num_bpd_images = 12
    config.eval.rtol = config.eval.atol = 1e-1
    return config

"""Digits of 8x8 pixels, binarised, with networks that compile in seconds: for tests of the program
with a latent score model."""

from configs.lsgm.small import joint


def get_config():
    """The joint stage in small."""
    config = joint.get_config()
    config.data.source = 'digits'
    config.data.image_size = (8, 8)
    config.autoencoder.code_channels = 3
    config.autoencoder.width = 8
    config.autoencoder.num_layers = 1
    config.model.width = 8
    config.model.num_blocks = 1
    config.model.embedding_size = 4
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
    config.eval.batch_size = 8
    config.eval.num_bpd_images = 12
    config.eval.exhibits = False
    config.eval.num_samples = 6
    config.eval.rtol = config.eval.atol = 1e-2
    return config

"""Handwritten digits, 28x28, on two cores in five minutes: the base of the mnist_* experiments."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """All but the SDE, and what depends on it."""
    config = base.get_config()

    config.data.source = 'mnist5k'
    config.data.image_size = (28, 28)
    config.data.channels = 1
    config.data.random_flip = False
    config.data.dequantize = True

    config.model.nf = 16
    config.model.ch_mult = (1, 2, 2)
    config.model.num_res_blocks = 1
    config.model.attn_resolutions = (7,)
    config.model.dropout = 0.0

    config.training.batch_size = 64
    config.training.num_steps = 900
    config.training.time_sampler = 'stratified'
    config.training.steps_per_dispatch = 10
    config.training.log_every = 20
    config.training.eval_every = 100
    config.training.sample_every = 300
    config.training.num_samples = 25
    config.training.checkpoint_every = 300

    config.optim.lr = 2e-3
    config.optim.warmup = 100
    config.optim.cosine_decay = True
    config.optim.ema_rate = 0.99
    config.optim.ema_warmup = True

    config.sampling.rtol = 1e-3
    config.sampling.atol = 1e-3
    config.eval.num_bpd_images = 256
    config.eval.rtol = 1e-3
    config.eval.atol = 1e-3
    return config

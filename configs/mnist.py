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

    # Blocks of DDPM, because those of BigGAN convolve twice at the size that costs most.
    config.model.resblock_type = 'ddpm'

    # Preconditioning, the bins of 8-bit values in view, and noise levels from below the width of a
    # bin, where most of a likelihood is gained, to above sigma = 1, where digits take their shape.
    config.model.parameterization = 'edm'
    config.model.input_fourier = (2, 3, 4, 5, 6, 7)
    config.training.weighting = 'edm'
    config.training.time_sampler = 'log_normal'
    config.training.log_sigma = (-1.5, 1.7)

    config.training.batch_size = 32
    config.training.num_steps = 1200
    config.training.steps_per_dispatch = 10
    config.training.log_every = 20
    config.training.eval_every = 200
    config.training.sample_every = 600
    config.training.num_samples = 36
    config.training.checkpoint_every = 300

    config.optim.lr = 6e-3
    config.optim.warmup = 50
    config.optim.cosine_decay = True
    config.optim.ema_rate = 0.99
    config.optim.ema_warmup = True

    config.sampling.steps = 200
    config.sampling.grid = 'karras'
    config.sampling.predictor = 'ancestral'
    config.sampling.rtol = 1e-2
    config.sampling.atol = 1e-2
    config.eval.num_samples = 200
    config.eval.num_bpd_images = 256
    config.eval.classifier_workdir = 'runs/classifier'
    config.eval.rtol = 3e-4
    config.eval.atol = 3e-4
    return config

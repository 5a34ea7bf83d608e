"""Binarised handwritten digits, small autoencoders and priors: what the stages share."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """With a flat autoencoder; all but the stage, and how long it takes."""
    config = base.latent()

    config.data.source = 'mnist5k'
    config.data.image_size = (28, 28)
    config.data.channels = 1
    config.data.random_flip = False
    config.data.centered = False
    config.data.binarize = True

    config.sde.name = 'vp'
    config.model.mixing_logit = -3.0

    config.training.batch_size = 128
    config.training.steps_per_dispatch = 50
    config.training.log_every = 100
    config.training.eval_every = 500
    config.training.checkpoint_every = 1000
    config.training.sample_every = 5000
    config.training.num_samples = 36

    config.optim.lr = 1e-3
    config.optim.warmup = 100
    config.optim.cosine_decay = True
    config.optim.grad_clip = 0.0
    config.optim.ema_rate = 0.999
    config.optim.ema_warmup = True

    config.sampling.method = 'dpmpp_2m'
    config.sampling.steps = 10
    config.sampling.grid = 'log_snr'
    config.sampling.t_min = 0.01
    config.eval.samplers = ('dpmpp_2m',)
    config.eval.num_samples = 1000
    config.eval.num_bpd_images = 1000
    config.eval.t_min = 0.01
    config.eval.divergence = 'exact'
    config.eval.classifier_workdir = 'runs/classifier'
    return config


def convolutional() -> ConfigDict:
    """With a convolutional one, of digits in 32 x 32 pixels. Squares of 4 x 4 become channels, and
    codes are 2 x 2 pixels of 8 channels.
    """
    config = get_config()
    config.autoencoder.name = 'convolutional'
    config.autoencoder.margin = 2
    config.autoencoder.first_halvings = 2
    config.autoencoder.nf = 32
    config.autoencoder.ch_mult = (1, 2, 4)
    config.autoencoder.code_channels = 8

    config.training.batch_size = 64
    config.training.eval_every = 1000
    config.eval.divergence = 'rademacher'
    return config

"""The experiments of LSGM at their published sizes (Vahdat et al. 2021, arXiv:2106.05931, appendix
G): what they share.

Each is two stages, and each stage a config: the autoencoder with codes N(0, I), and then both. They
are as published but for what this project does not have: residual cells are those of DDPM++,
without squeeze and excitation, and there are no normalising flows in q; images have 8 bits; one
moving average is of all parameters; the optimiser of the autoencoder differs from that of the prior
in its rate alone, which stays as it is in the second stage. None of them was trained here.
"""

from ml_collections import ConfigDict

from configs import base, fields

# The last weight of codes in the first stage, where the second one goes on from it.
PARTIAL = 0.7


def get_config() -> ConfigDict:
    """What all have."""
    config = fields.config(base.latent_score_model('ncsnpp'))
    config.data.centered = False
    config.autoencoder.name = 'convolutional'

    config.model.embedding_type = 'positional'
    config.model.dropout = 0.2
    config.model.num_res_blocks = 8
    config.model.mixing_logit = -6.0

    config.optim.eps = 1e-4
    config.optim.weight_decay = 3e-4
    config.optim.grad_clip = 0.0
    config.optim.ema_rate = 0.9999

    config.sampling.method = 'ode'
    config.sampling.t_min = 1e-5
    config.eval.samplers = ('ode',)
    config.eval.t_min = 1e-5
    config.eval.divergence = 'gaussian'
    return config


def mnist() -> ConfigDict:
    """Binarised digits, in 32 x 32 pixels of which the decoder is asked for 28 x 28."""
    config = _binary('mnist')
    config.autoencoder.ch_mult = (1, 2, 2)
    config.autoencoder.cells = 3
    config.autoencoder.groups = 2
    config.model.ch_mult = (1, 1)
    config.model.attn_resolutions = ()
    return config


def omniglot() -> ConfigDict:
    """Binarised characters; TFDS has them as black strokes on white, and with another split."""
    config = _binary('omniglot')
    config.data.invert = True
    config.data.fit = 'squash'
    config.autoencoder.ch_mult = (1, 2)
    config.autoencoder.cells = 2
    config.autoencoder.groups = 3
    config.autoencoder.group_cells = 3
    config.model.ch_mult = (1, 1, 1)
    return config


def _binary(source: str) -> ConfigDict:
    config = get_config()
    config.data.source = source
    config.data.image_size = (28, 28)
    config.data.channels = 1
    config.data.random_flip = False
    config.data.binarize = True
    config.autoencoder.nf = 64
    config.autoencoder.margin = 2
    config.autoencoder.code_channels = 20
    config.model.nf = 256
    return config


def cifar10() -> ConfigDict:
    """20 groups of 9 channels at 16 x 16."""
    config = get_config()
    config.autoencoder.decoder = 'discretised_logistic_mixture'
    config.autoencoder.nf = 128
    config.autoencoder.ch_mult = (1, 2)
    config.autoencoder.cells = 2
    config.autoencoder.groups = 20
    config.autoencoder.group_cells = 2
    config.autoencoder.code_channels = 9
    config.model.nf = 512
    config.model.ch_mult = (1, 1, 1)
    config.model.fir = True
    config.model.mixing_logit = -3.0
    config.sampling.t_min = config.eval.t_min = 1e-6
    return config


def cifar10_nll() -> ConfigDict:
    """4 groups of 45 channels, and the geometric VP SDE, all of whose times count alike."""
    config = cifar10()
    config.sde.name = 'geometric'
    config.autoencoder.nf = 256
    config.autoencoder.cells = 3
    config.autoencoder.groups = 4
    config.autoencoder.group_cells = 3
    config.autoencoder.code_channels = 45
    return config


def celebahq_256() -> ConfigDict:
    """8 groups of 20 channels at 32 x 32, with a prior that is learned, and as many at 64 x 64 and
    at 128 x 128.
    """
    config = get_config()
    config.data.source = 'folder:data/celebahq'
    config.data.image_size = (256, 256)
    config.autoencoder.decoder = 'discretised_logistic_mixture'
    config.autoencoder.nf = 64
    config.autoencoder.ch_mult = (1, 1, 2, 4)
    config.autoencoder.cells = 2
    config.autoencoder.groups = 8
    config.autoencoder.finer_groups = (8, 8)
    config.autoencoder.group_cells = 2
    config.autoencoder.code_channels = 20
    config.model.nf = 256
    config.model.ch_mult = (1, 1, 1, 1)
    config.model.fir = True
    return config


# Stages


def autoencoder(
    config: ConfigDict,
    images: int,
    batch_size: int,
    epochs: int,
    warmup_share: float = 1.0,
    kl_end: float = 1.0,
    spectral: float = 1e-2,
) -> ConfigDict:
    """The first stage, of so many training images: Adamax, five epochs of a rising rate."""
    config = _run(config, images, batch_size, epochs, warmup_epochs=5)
    config.training.stage = 'autoencoder'
    config.training.kl_warmup = int(warmup_share * config.training.num_steps)
    config.training.kl_end = kl_end
    config.training.kl_balancing = True
    config.training.spectral_autoencoder = spectral
    config.optim.name = 'adamax'
    config.optim.lr = 1e-2
    config.optim.cosine_decay = True
    config.optim.eps = 1e-3
    return config


def joint(
    config: ConfigDict,
    images: int,
    batch_size: int,
    epochs: int,
    lr: float = 3e-4,
    warmup_epochs: int = 20,
    is_partial: bool = True,
    spectral: tuple[float, float] = (1e-2, 0.0),
) -> ConfigDict:
    """The second stage: Adam, 1e-4 for the autoencoder and `lr` for the prior. `is_partial`: in the
    first tenth the weight of codes rises to 1. `spectral` is for the autoencoder and the prior.
    """
    config = _run(config, images, batch_size, epochs, warmup_epochs)
    config.training.stage = 'joint'
    config.training.t_min = 0.01
    if is_partial:
        config.training.kl_start = PARTIAL
        config.training.kl_warmup = config.training.num_steps // 10
    config.training.spectral_autoencoder, config.training.spectral_prior = spectral
    config.training.autoencoder_lr = 1e-4 / lr
    config.optim.lr = lr
    return config


def _run(
    config: ConfigDict, images: int, batch_size: int, epochs: int, warmup_epochs: int
) -> ConfigDict:
    fields = config.training
    fields.batch_size = batch_size
    dispatches = epochs * images // (batch_size * fields.steps_per_dispatch)
    fields.num_steps = dispatches * fields.steps_per_dispatch
    config.optim.warmup = warmup_epochs * images // batch_size
    return config

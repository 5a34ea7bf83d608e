"""Every field of a config, once: its default, what it may be, and what it means.

docs/fields.md shows them in tables. A config file takes a copy and changes what differs.

The fields depend on what is trained, EXPERIMENTS, and on its network. Those of networks and SDEs
are the options that their classes declare (models/, sde_lib.py).
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping

from flax import linen as nn
from ml_collections import ConfigDict

import equations
import implicit
import likelihood
import losses
import models
import parameterization
import sampling as samplers
import sde_lib
import time_sampling
import training
from choices import InputError, OneOf, Range, choose, fields_of
from configs import fields
from configs.fields import Field, Fields, Values
from datasets import sizes
from equations import objectives
from models import layers, pixels, vae
from solvers import correctors, grids, ode, predictors, reverse_sde

# What numbers may be. Upper ends are where nothing sensible is beyond, and memory or patience would
# end first.
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, without_low=True)
SHARE = Range(0, 1)
RATE = Range(0, 1, without_high=True)
STEPS = Range(0, 10**9)
SEEDS = Range(0, 2**31 - 1)
SOME_STEPS = Range(1, 10**9)
COUNT = Range(1, 10**6)
FEW = Range(1, 1000)
PAIR = Range(2, 2)
# Networks for vectors.
POINT_NETWORKS = {
    'residual_mlp': models.SCORE_NETWORKS['residual_mlp'],
    'energy_mlp': models.ENERGY_NETWORKS['energy_mlp'],
}


# Configs, for config files to begin with


def get_config() -> ConfigDict:
    """CIFAR-10 sized defaults: DDPM++ with the VP SDE, as in Song et al. 2021."""
    return fields.config(score_model())


def latent() -> ConfigDict:
    """The config of an autoencoder with a score model as the prior of its codes."""
    return fields.config(latent_score_model())


def classifier() -> ConfigDict:
    """The config of a noise-conditional classifier, with the VP SDE."""
    return fields.config(noise_classifier())


def simulated() -> ConfigDict:
    """The config of a score model of vectors, of an SDE that is simulated."""
    return fields.config(simulated_score_model())


# Networks: a config file takes one of them as config.model.


def ncsnpp() -> ConfigDict:
    """NCSN++ and DDPM++."""
    return fields.config(score_network('ncsnpp'))


def ddpm() -> ConfigDict:
    """The U-Net of DDPM."""
    return fields.config(score_network('ddpm'))


def adm() -> ConfigDict:
    """The U-Net of ADM."""
    return fields.config(score_network('adm'))


def ncsnv2() -> ConfigDict:
    """The RefineNet of NCSNv2 for 64 pixels; those for 128 and 256 have the same fields."""
    return fields.config(score_network('ncsnv2_64'))


def ncsn() -> ConfigDict:
    """The RefineNet of NCSN, which has parameters of its own for every level of the SMLD chain."""
    return fields.config(score_network('ncsn'))


def energy_mlp() -> ConfigDict:
    """The energy that is a multi-layer perceptron."""
    return fields.config(score_network('energy_mlp'))


def energy_conv() -> ConfigDict:
    """The convolutional energy."""
    return fields.config(score_network('energy_conv'))


def wideresnet() -> ConfigDict:
    """The noise-conditional classifier."""
    return fields.config(network(models.CLASSIFIERS, 'wideresnet'))


def normalised_mlp() -> ConfigDict:
    """A classifier whose function does not change with the length of its parameters."""
    return fields.config(network(models.CLASSIFIERS, 'normalised_mlp'))


# What is trained: fields by the name of the network, and by that of a default network for None.


def score_model(name: str | None = None) -> Fields:
    """All fields of a model of the score; raises InputError for unknown names of networks."""
    return {
        **general('score_model'),
        **noisy_images(),
        'model': score_network(name or 'ncsnpp'),
        'training': {**run(), **times(), **score_matching()},
        'sampling': sampling(),
        'task': task(),
        'purify': purification({'task.name': ('purify',)}),
        'eval': {**evaluation(), **score_evaluation()},
    }


def noise_classifier(name: str | None = None) -> Fields:
    """All fields of a classifier of noisy images; raises InputError for unknown networks."""
    return {
        **general('classifier'),
        **noisy_images(),
        'model': network(models.CLASSIFIERS, name or 'wideresnet'),
        'training': {**run(), **noise_of_images()},
        'eval': {**evaluation(), **classifier_evaluation()},
        'purify': defence(),
        'attack': attack(),
    }


def latent_score_model(name: str | None = None) -> Fields:
    """All fields of an autoencoder and of the score model of its codes; raises InputError for
    unknown names of networks.
    """
    images = noisy_images()
    return {
        **general('latent_score_model'),
        **images,
        'data': {**images['data'], **binarization()},
        'autoencoder': autoencoder(),
        'model': score_network(name or 'residual_mlp'),
        'training': {**run(), **evidence_training(), **pictures()},
        'sampling': sampling(),
        'eval': {**evaluation(), **evidence_evaluation(), **sample_evaluation()},
    }


def simulated_score_model(name: str | None = None) -> Fields:
    """All fields of a score model of vectors, of an SDE that is simulated; raises InputError for
    unknown names of networks.
    """
    return {
        **general('simulated_score_model'),
        'points': points(),
        'sde': sde(sde_lib.WITHOUT_KERNEL),
        'simulation': {
            'steps': Field(
                400,
                'of each state, from time 0 to its own; too few of a steep drift overshoot, and '
                'what is not finite is an update without effect',
                Range(1, 10**5),
            )
        },
        'model': network(POINT_NETWORKS, name or 'residual_mlp'),
        'optim': optim_of_strata(),
        'training': {**run(), **implicit_score_matching()},
        'sampling': sampling_points(),
        'eval': {**evaluation(), **simulated_evaluation()},
    }


def differential_equation(_: str | None = None) -> Fields:
    """All fields of networks that solve a differential equation."""
    return {
        **general('differential_equation'),
        'equation': equation(),
        'solution': tanh_network(40, 2),
        'discriminator': discriminator(),
        'training': {**run(), **equation_training()},
        'optim': {**adam(), **decay()},
        'eval': evaluation(),
    }


def general(experiment: str) -> Fields:
    """What every experiment has."""
    return {
        'experiment': Field(experiment, 'what is trained', EXPERIMENTS),
        'seed': Field(42, 'of all that is drawn', SEEDS),
        'mesh': mesh(),
        'debug': debug(),
    }


def noisy_images() -> Fields:
    """What experiments with networks for noisy images have."""
    return {'data': data(), 'sde': sde(), 'optim': optim()}


# Sections


def mesh() -> Fields:
    """How many devices share what; a batch is split over all of them. -1: all that are left."""
    return fields.changeable(
        {
            'data': Field(
                -1,
                'groups of devices, each of which has the parameters once; -1: all that are left',
            ),
            'fsdp': Field(
                1, 'devices of a group, over which parameters and optimiser are split; -1: the rest'
            ),
        }
    )


def data() -> Fields:
    """Images, and how they become arrays."""
    return {
        'source': Field(
            'cifar10',
            'cifar10, cifar100, mnist5k, digits, folder:PATH, zip:PATH, tar:PATH, npz:PATH, '
            'cifar10:PATH, or a name of TFDS; docs/data.md',
            free=True,
        ),
        'data_dir': Field(
            None,
            "where downloads and the data of TFDS are kept; None: the user's cache, and TFDS's own "
            'place',
            type=str,
            free=True,
        ),
        'image_size': Field(
            (32, 32),
            'height and width; other images are brought to it as data.fit says',
            Range(1, 2**14),
            length=PAIR,
        ),
        'channels': Field(3, '1: grey, 3: colour', OneOf((1, 3))),
        'crop_size': Field(
            None,
            'side of the square that is cut from the centre before data.fit; None: no cut',
            Range(1, 2**14),
            type=int,
        ),
        'fit': Field(
            'crop',
            'crop: cut the centre; squash: scale height and width apart; pad: with black',
            sizes.FITS,
        ),
        'test_fraction': Field(
            0.1,
            'share of images kept for tests where the source has no test split; of a folder about '
            'that share',
            Range(0, 1, without_low=True, without_high=True),
        ),
        'max_pixels': Field(
            sizes.MAX_PIXELS,
            'height times width that an image file may have',
            Range(1, 2**40),
            free=True,
        ),
        'random_flip': Field(True, 'training mirrors half of the images'),
        'dequantize': Field(False, 'training adds uniform noise over the bins of 8-bit values'),
        'centered': Field(True, 'values of images lie in [-1, 1]; otherwise in [0, 1]'),
    }


def binarization() -> Fields:
    """What data has for experiments on the values of pixels."""
    return {
        'invert': Field(False, '255 - v for every value v: dark strokes on paper become light'),
        'binarize': Field(
            False,
            'pixels are on or off, on with their value as probability: drawn anew in every update, '
            'and once for each image that is measured',
        ),
    }


def points() -> Fields:
    """Vectors."""
    return {
        'source': Field(
            'trio',
            'trio, of which the density is known, or npz:PATH, with points [num, dim], or '
            'train_points and test_points',
            free=True,
        ),
        'test_fraction': Field(
            0.1,
            'share of undivided points kept for tests, the last of them',
            Range(0, 1, without_low=True, without_high=True),
        ),
    }


def sde(known: Mapping[str, type] = sde_lib.SDES) -> Fields:
    """The SDE, one of these, and its fields."""
    return {
        'name': Field(next(iter(known)), 'which SDE', known),
        **fields.of_any(known, 'sde.name'),
    }


def network(networks: Mapping[str, type[nn.Module]], name: str) -> Fields:
    """The section `model` of one of these networks."""
    with fields_of('model'):
        chosen = choose(networks, name, 'name')
    options = fields.of_options(models.all_fields(chosen))
    return {
        'name': Field(name, 'which network', networks),
        **options,
        'precision': dataclasses.replace(options['precision'], free=True),
    }


def score_network(name: str) -> Fields:
    """The section `model` of a network whose output, or its gradient, becomes a score."""
    section = network({**models.SCORE_NETWORKS, **models.ENERGY_NETWORKS}, name)
    chosen = models.MODELS[name]
    if name in models.ENERGY_NETWORKS:
        return section | {
            'parameterization': Field(
                'noise',
                'how the gradient of the output becomes a score',
                parameterization.SCALAR_ENERGIES,
            ),
            **input_fourier(),
        }
    section['parameterization'] = Field(
        'smld' if chosen.integer_labels else 'noise',
        'how the output becomes a score',
        parameterization.PARAMETERIZATIONS,
    )
    section['energy'] = Field(
        'none',
        'the score is the gradient of an energy made of that output: of its inner product with x, '
        'or of its norm; none: it is the output itself',
        OneOf(('none', *parameterization.ENERGIES)),
    )
    section['mixing_logit'] = Field(
        None,
        "first logit of the network's share of the score in each channel, which is trained; the "
        'rest is that of data N(0, I). None: all of it',
        Range(-100, 100),
        type=float,
    )
    # More channels come in than go out.
    if 'out_channels' in {field.name for field in models.all_fields(chosen)}:
        section |= input_fourier()
    return section


def input_fourier() -> Fields:
    """What a network sees of a state besides it."""
    return {
        'input_fourier': Field(
            (),
            'edm: sin and cos of 2^n pi x for each of these n are input too',
            Range(0, 32),
            type=int,
            length=Range(0, 64),
        )
    }


def autoencoder() -> Fields:
    """From images to codes and back; the size of the codes is that of the prior's states."""
    own = {
        name: fields.of_options(models.all_fields(kind)) for name, kind in vae.AUTOENCODERS.items()
    }
    return {
        'name': Field('mlp', 'which autoencoder', vae.AUTOENCODERS),
        'decoder': Field('bernoulli', 'distribution of a pixel', pixels.PIXEL_DISTRIBUTIONS),
        **{
            option: dataclasses.replace(
                field, of={'autoencoder.name': tuple(n for n in own if option in own[n])}
            )
            for section in own.values()
            for option, field in section.items()
        },
    }


def equation() -> Fields:
    """A problem, and the grid that it is solved on."""
    return {
        'name': Field('exp', 'which problem; docs/deqgan.md', equations.PROBLEMS),
        'points': Field(
            (100,), 'of the grid along each axis, its ends included', Range(2, 10**5), length=FEW
        ),
    }


def tanh_network(units: int, blocks: int) -> Fields:
    """A residual network of tanh layers."""
    return {
        'units': Field(units, 'of every layer', Range(1, 4096)),
        'blocks': Field(blocks, 'residual blocks, of two layers each', Range(0, 100)),
    }


def discriminator() -> Fields:
    """The network that tells residuals from zeros, and its optimiser."""
    section = {
        **tanh_network(20, 4),
        **adam(),
    }
    return fields.of_choices({'training.loss': (objectives.GAN,)}, section)


def equation_training() -> Fields:
    """What training has of differential equations alone."""
    return {
        'loss': Field(
            'gan',
            'what makes residuals vanish: a discriminator, or a fixed function of them',
            OneOf(objectives.LOSSES),
        ),
        'num_networks': Field(10, 'networks, from seeds of their own', FEW),
        'instance_noise': Field(
            True,
            'the discriminator sees residuals and zeros through noise while it wins',
            of={'training.loss': (objectives.GAN,)},
        ),
        'stop_alarmed': Field(
            False,
            'a network whose residual scatters between 15 and 25 % of all steps stays as it is '
            'from there on',
        ),
        # Those of experiments/deqgan.py, which stands above configs.
        'dtype': Field('float32', 'numbers that all is computed in', OneOf(('float32', 'float64'))),
    }


def adam() -> Fields:
    """The optimiser Adam as it stands."""
    fields = {name: optim()[name] for name in ('lr', 'beta1', 'beta2')}
    return {name: dataclasses.replace(field, of={}) for name, field in fields.items()}


def decay() -> Fields:
    """A learning rate that falls in steps."""
    return {
        'decay': Field(0.95, 'factor of all rates', Range(0, 1, without_low=True)),
        'decay_every': Field(10, 'updates after which it is applied again', SOME_STEPS),
    }


def times() -> Fields:
    """The times at which an objective is taken."""
    return {
        'time_sampler': Field('uniform', 'how times are drawn', time_sampling.TIME_SAMPLERS),
        'log_sigma': Field(
            (-1.2, 1.2),
            'mean and standard deviation of log(sigma / alpha)',
            length=PAIR,
            of={'training.time_sampler': ('log_normal',)},
        ),
        **first_time(),
    }


def noise_of_images() -> Fields:
    """The times whose noise a classifier learns, if any."""
    of_noise = {'training.noise': (True,)}
    return {
        'noise': Field(
            True, 'images have the noise of the SDE at times of their own; otherwise none'
        ),
        **{
            name: field if field.of else dataclasses.replace(field, of=of_noise)
            for name, field in times().items()
        },
    }


def first_time() -> Fields:
    """Where the times of an objective begin."""
    return {'t_min': Field(None, "earliest time; None: the SDE's", NOT_NEGATIVE, type=float)}


def run() -> Fields:
    """What every run of training has."""
    return {
        'batch_size': Field(128, 'examples of an update; of svag those of both halves', COUNT),
        'replacement': Field(
            False,
            'every example of a batch is drawn from all; otherwise an epoch has each of them once',
        ),
        'steps_per_dispatch': Field(
            5, 'updates in one compiled program; all periods are multiples of it', FEW
        ),
        **fields.changeable(
            {
                'num_steps': Field(1_300_000, 'updates in all', SOME_STEPS),
                'log_every': Field(50, 'updates between numbers in the log', SOME_STEPS),
                'eval_every': Field(100, 'updates between losses of one test batch', STEPS),
                'checkpoint_every': Field(10_000, 'updates between checkpoints', STEPS),
                'keep_checkpoints': Field(
                    3, 'how many of the newest stay; besides them those of the next two', COUNT
                ),
                'keep_every': Field(
                    50_000, 'those at multiples of so many updates; 0: none', STEPS
                ),
                'keep_best': Field(
                    1, 'so many of the least loss of the test batch', Range(0, 10**6)
                ),
                'init_from': Field(
                    None,
                    'WORKDIR or WORKDIR:STEP of another run, or a published file: where a run that '
                    'has no checkpoint yet has its parameters and their average from; None: random',
                    type=str,
                ),
                'max_skipped': Field(
                    20,
                    'updates in a row without effect, as loss or gradient were not finite, that '
                    'end training',
                    COUNT,
                ),
            }
        ),
    }


def score_matching() -> Fields:
    """What training has of score matching alone."""
    return {
        'objective': Field(
            'denoising', 'what makes the score; docs/objectives.md', losses.OBJECTIVES
        ),
        'weighting': Field('sigma2', 'of the losses of different times', losses.WEIGHTINGS),
        'reduce_mean': Field(True, 'the mean over pixels; otherwise half of their sum'),
        **fields.of_choices(
            {'training.objective': objectives_with('projection')},
            {
                'projection': Field(
                    'rademacher',
                    'of directions along which derivatives are taken',
                    implicit.DIRECTIONS,
                ),
                'num_projections': Field(1, 'such directions for each image', FEW),
            },
        ),
        'fd_step': Field(
            None,
            'length of a difference in each coordinate, in parts of sigma_t; None: '
            f'{losses.DENSITY_STEP:g} of a log density, {losses.SCORE_STEP:g} of a score',
            Range(1e-6, 10),
            type=float,
            of={'training.objective': objectives_with('fd_step')},
        ),
        'label_dropout': Field(
            0.0, 'share of images without their label, which task.guidance needs', SHARE
        ),
        **pictures(),
    }


def implicit_score_matching() -> Fields:
    """What training has of the objectives that take states as they are."""
    section = score_matching()
    objective = dataclasses.replace(
        section['objective'], default='sliced_vr', allowed=losses.IMPLICIT
    )
    having = {
        name: tuple(n for n in objectives_with(name) if n in losses.IMPLICIT)
        for name in ('projection', 'num_projections', 'fd_step')
    }
    return {
        'objective': objective,
        **{
            name: dataclasses.replace(section[name], of={'training.objective': names})
            for name, names in having.items()
        },
    }


def objectives_with(field: str) -> tuple[str, ...]:
    """The objectives that have this field."""
    return tuple(
        name
        for name, objective in losses.OBJECTIVES.items()
        if field in {f.name for f in dataclasses.fields(objective)}
    )


def pictures() -> Fields:
    """The pictures that training draws."""
    return fields.changeable(
        {
            'sample_every': Field(50_000, 'updates between pictures of samples; 0: none', STEPS),
            'num_samples': Field(64, 'images of such a picture', COUNT),
        }
    )


# Those of experiments/latent.py, which stands above configs.
STAGES = ('autoencoder', 'prior', 'joint')


def evidence_training() -> Fields:
    """What training has of a latent score model alone."""
    of_codes = {'training.stage': ('autoencoder', 'joint')}
    of_prior = {'training.stage': ('prior', 'joint')}
    return {
        'stage': Field(
            'joint',
            'what is trained: the autoencoder with codes N(0, I), the prior of its codes, or both',
            OneOf(STAGES),
        ),
        'kl_warmup': Field(
            0, 'updates over which the terms of codes get their weight', STEPS, of=of_codes
        ),
        'kl_start': Field(1e-4, 'their weight at the first of these updates', SHARE, of=of_codes),
        'kl_end': Field(1.0, 'their weight after these updates', SHARE, of=of_codes),
        'kl_balancing': Field(
            False,
            'while that is below 1, groups of latents that say much weigh more than others',
            of={'training.stage': ('autoencoder',)},
        ),
        'autoencoder_lr': Field(
            1.0,
            'learning rate of the autoencoder, in units of optim.lr',
            NOT_NEGATIVE,
            of={'training.stage': ('joint',)},
        ),
        'spectral_autoencoder': Field(
            0.0,
            'weight of the sum of the largest singular values of its layers, and of the largest '
            'scales of its normalisations',
            NOT_NEGATIVE,
            of=of_codes,
        ),
        'spectral_prior': Field(
            0.0, 'the same of the network of the prior', NOT_NEGATIVE, of=of_prior
        ),
        **fields.of_choices(
            of_prior,
            {
                'prior_weighting': Field(
                    'likelihood',
                    'of the losses of different times, for the prior alone',
                    losses.CODE_TIMES,
                ),
                'shared_times': Field(
                    True,
                    'prior and codes have the same times; otherwise each its own, for a second '
                    'evaluation of the network',
                ),
                'importance': Field(
                    True, 'times by importance sampling for the weighting; otherwise uniform'
                ),
                **first_time(),
            },
        ),
        'control_variate': Field(
            True,
            'codes see of a draw the difference from N(0, I), whose part is known in the mean: '
            'less noise, and no bias',
            of={'training.stage': ('joint',)},
        ),
    }


def optim() -> Fields:
    """The optimiser, and the moving average of the parameters."""
    adam = {
        'beta1': Field(0.9, 'decay of the mean of gradients', RATE),
        'beta2': Field(0.999, 'decay of the mean of their squares', RATE),
        'eps': Field(1e-8, 'added to the root of that', POSITIVE),
    }
    return {
        'name': Field(
            'adam',
            'adam; adamax: the largest gradient in the place of the root; sgd: no momentum; svag: '
            'sgd of the same noise, in smaller steps (docs/svag.md)',
            training.OPTIMIZERS,
        ),
        'lr': Field(2e-4, 'learning rate', POSITIVE),
        'warmup': Field(5000, 'updates over which it rises from 0; of svag steps of sgd', STEPS),
        'cosine_decay': Field(False, 'it falls to 0 at training.num_steps'),
        'drop_at': Field(
            (), 'updates at which it is multiplied by optim.drop; of svag steps of sgd', STEPS, int
        ),
        'drop': Field(0.1, 'see optim.drop_at', Range(0, 1, without_low=True)),
        'substeps': Field(
            16,
            'l, updates in the place of one of sgd, each with the rate over l',
            Range(1, 10**6),
            of={'optim.name': ('svag',)},
        ),
        **fields.of_choices({'optim.name': ('adam', 'adamax')}, adam),
        'weight_decay': Field(0.0, 'weight of the squares of parameters', NOT_NEGATIVE),
        'grad_clip': Field(1.0, 'largest norm of the gradient; 0 or less: any'),
        'ema_rate': Field(0.9999, 'decay of the moving average of parameters', RATE),
        'ema_warmup': Field(
            False, 'a faster average at first: min(ema_rate, (1 + step) / (10 + step))'
        ),
    }


def optim_of_strata() -> Fields:
    """Without svag, whose halves of a batch have to be independent, where times are stratified."""
    section = optim()
    others = {name: create for name, create in training.OPTIMIZERS.items() if name != 'svag'}
    return {
        **{name: field for name, field in section.items() if name != 'substeps'},
        'name': dataclasses.replace(section['name'], allowed=others),
    }


def debug() -> Fields:
    """Looking for errors, at the price of time and memory."""
    return fields.changeable(
        {
            'nans': Field(
                False, 'training stops at the first number that is not finite, and says where'
            )
        }
    )


# Sampling

METHODS = tuple(samplers.METHODS)
ON_GRID = tuple(name for name in METHODS if name not in ('ode', 'sde', 'adaptive_sde'))


def of_samplers(*names: str) -> dict[str, tuple]:
    """For which choices a field exists that only these methods have."""
    return {'sampling.method': names, 'eval.samplers': names}


def sampling() -> Fields:
    """From noise to images, for --mode=sample, the pictures of training, eval.samplers and
    eval.exhibits.
    """
    # An adaptive solver that is told not to be is on the grid as well.
    on_grid = {**of_samplers(*ON_GRID), 'sampling.adaptive': (False,)}
    corrected = {'sampling.corrector': ('langevin', 'annealed_langevin', 'mala')}
    # Interpolations among the exhibits are solutions of the ODE too.
    tolerances = of_samplers('ode') | {'eval.exhibits': (True,)}
    section = {
        'method': Field('pc', 'which sampler', OneOf(METHODS)),
        'num_samples': Field(64, 'images that are drawn', COUNT),
        'batch_size': Field(64, 'images that are drawn at once', COUNT),
        'seed': Field(
            None, "of the noise that images are drawn from; None: the run's", SEEDS, type=int
        ),
        't_min': Field(
            None,
            "last time of the way back; None: the SDE's, and of pc on a chain's uniform grid 0",
            NOT_NEGATIVE,
            type=float,
        ),
        'temperature': Field(
            1.0, 'scale of all noise; below 1: likelier, less varied images', NOT_NEGATIVE
        ),
        'denoise': Field(
            True,
            'the last state comes without the noise of its step; of solvers without noise as '
            'E[x_0 given x], for one evaluation more',
        ),
        'steps': Field(1000, 'steps of the time grid', Range(1, 10**6), of=on_grid),
        'grid': Field('uniform', 'where its times lie', grids.TIME_GRIDS, of=on_grid),
        'predictor': Field(
            'euler_maruyama',
            'what makes a step',
            predictors.PREDICTORS,
            of=of_samplers('pc', 'picard'),
        ),
        'eta': Field(
            None,
            'noise on the way: 1 the reverse SDE, 0 the probability flow; None: 0 of ddim, else 1',
            NOT_NEGATIVE,
            type=float,
            of=of_samplers('pc', 'picard', 'sde', 'adaptive_sde', 'dpmpp_2m_sde'),
        ),
        'corrector': Field(
            'none',
            'what corrects a state after its step; picard has none; mala is of energies alone',
            correctors.CORRECTORS,
            of=of_samplers('pc', 'picard'),
        ),
        **fields.of_choices(
            corrected,
            {
                'corrector_steps': Field(1, 'corrections after a step', FEW),
                'snr': Field(0.16, 'signal-to-noise ratio of a correction', POSITIVE),
            },
        ),
        'batch_mean_norm': Field(
            False,
            'norms are means over the batch, as published',
            of={'sampling.corrector': ('langevin',)},
        ),
        **fields.of_choices(
            of_samplers('euler', 'heun'),
            {
                'churn': Field(
                    0.0,
                    'noise added on the way, S_churn of EDM, shared by all steps; 0: none',
                    NOT_NEGATIVE,
                ),
                'churn_min': Field(
                    0.0, 'least level sigma / alpha at which it is added', NOT_NEGATIVE
                ),
                'churn_max': Field(
                    None, 'largest such level; None: the highest', NOT_NEGATIVE, type=float
                ),
                'noise_scale': Field(
                    1.0,
                    'standard deviation of that noise: EDM has up to 1.007, against lost detail',
                    NOT_NEGATIVE,
                ),
            },
        ),
        **fields.of_choices(
            of_samplers('picard'),
            {
                'window': Field(64, 'steps that are evaluated at once', Range(1, 10**6)),
                'picard_tolerance': Field(
                    0.1,
                    'change of a state that has settled, in parts of the noise of its step',
                    POSITIVE,
                ),
            },
        ),
        'solver': Field(
            'tsit5',
            'solver of the probability flow; implicit_euler and the kvaerno are for up to a few '
            'hundred dimensions',
            ode.SOLVERS,
            of=of_samplers('ode'),
        ),
        'per_image_steps': Field(
            True,
            'each image has steps of its own; otherwise one step size for a batch, as published',
            of=of_samplers('ode'),
        ),
        'sde_solver': Field(
            'shark', 'solver of the reverse SDE', reverse_sde.SOLVERS, of=of_samplers('sde')
        ),
        'adaptive': Field(
            True,
            'steps are as the tolerances ask for; otherwise sampling.steps of them on the grid',
            of=of_samplers('ode', 'sde'),
        ),
        **fields.of_choices(
            of_samplers('sde', 'adaptive_sde'),
            {
                'sde_rtol': Field(0.02, 'relative tolerance', POSITIVE),
                'sde_atol': Field(
                    0.0078,
                    'absolute tolerance: as published one of 256 values in [-1, 1]',
                    POSITIVE,
                ),
            },
        ),
        'rtol': Field(1e-5, 'relative tolerance', POSITIVE, of=tolerances),
        'atol': Field(1e-5, 'absolute tolerance', POSITIVE, of=tolerances),
    }
    return fields.changeable(section)


# Those that ask for no perturbation kernel.
WITHOUT_KERNEL = ('pc', 'ode', 'adaptive_sde')


def sampling_points() -> Fields:
    """From the prior to vectors, for eval.samplers."""
    declared = sampling()
    names = 'eta', 'steps', 'sde_rtol', 'sde_atol', 'rtol', 'atol'
    of = {'eta': ('pc', 'adaptive_sde'), 'steps': ('pc',)} | {
        name: ('adaptive_sde',) if name.startswith('sde') else ('ode',) for name in names[2:]
    }
    return fields.changeable(
        {
            'num_samples': Field(2000, 'states that are drawn, and simulated', COUNT),
            **{
                name: dataclasses.replace(declared[name], of={'eval.samplers': of[name]})
                for name in names
            },
        }
    )


# Tasks

# Those of applications/conditional, which stands above configs.
MEASURED_TASKS = ('inpaint', 'colourise', 'superresolve', 'deblur', 'linear')
TASKS = ('none', 'class', *MEASURED_TASKS, 'purify')
GUIDED = ('dps', 'pigdm')
TASK_METHODS = ('projection', *GUIDED)


def task() -> Fields:
    """What --mode=sample draws images from besides noise; --task=NAME sets `name`."""
    section = {
        'name': Field('none', 'which task', OneOf(TASKS)),
        'guidance': Field(
            1.0,
            'strength: of classes above 1 more typical, less varied images; of dps its step size, '
            '0.3 to 1; of pigdm 1',
            NOT_NEGATIVE,
            of={'task.name': ('class',), 'task.method': GUIDED},
        ),
        'label': Field(
            None,
            'the class of all images; None: each in turn',
            NOT_NEGATIVE,
            type=int,
            of={'task.name': TASKS[1:]},
        ),
        'classifier': Field(
            None,
            'the workdir of a classifier, which guides networks that know no classes, and judges '
            'the images',
            type=str,
            of={'task.name': ('class',)},
        ),
        **fields.of_choices(
            {'task.name': (*MEASURED_TASKS, 'purify')},
            {
                'images': Field(
                    None, 'FILE.png, folder:PATH or npz:PATH; None: the test split', type=str
                ),
                'num_images': Field(8, 'the first of them', COUNT),
                'samples_each': Field(4, 'samples for each of them', COUNT),
            },
        ),
        **fields.of_choices(
            {'task.name': MEASURED_TASKS},
            {
                'measured': Field(
                    False, 'the images are measurements already: grey, small or blurred'
                ),
                'method': Field(
                    'projection', 'how images with a measurement are drawn', OneOf(TASK_METHODS)
                ),
                'noise_std': Field(
                    0.0, 'of noise that is added to measurements, or that they have', NOT_NEGATIVE
                ),
                'seed': Field(
                    None, "of noise that is added to measurements; None: the run's", SEEDS, type=int
                ),
            },
        ),
        'data_std': Field(
            0.5,
            'standard deviation of pixels over the data',
            POSITIVE,
            of={'task.method': ('pigdm',)},
        ),
        'mask': Field(
            None,
            'an image of data.image_size, white where pixels are known',
            type=str,
            of={'task.name': ('inpaint',)},
        ),
        'factor': Field(
            None,
            'side of the squares whose mean is known',
            Range(2, 2**14),
            type=int,
            of={'task.name': ('superresolve',)},
        ),
        'blur_std': Field(
            None,
            'standard deviation of the Gaussian, in pixels',
            POSITIVE,
            type=float,
            of={'task.name': ('deblur',)},
        ),
        'matrix': Field(
            None,
            'FILE.npy, an array [m, height * width * channels]',
            type=str,
            of={'task.name': ('linear',)},
        ),
    }
    return fields.changeable(section)


# Purification

# Those of applications/purification and evaluation/corruptions.py, which stand above configs.
PURIFIERS = ('adp', 'adp_published', 'denoise_once', 'diffpure', 'noise', 'none')
ASCENTS = ('adp', 'adp_published')
ATTACKS = ('pgd', 'apgd')
NORMS = ('linf', 'l2')
KNOWN = ('blind', 'bpda', 'full')
CORRUPTIONS = ('noise', 'blur', 'contrast', 'pixelate', 'jpeg')


def purification(of: Mapping[str, Collection]) -> Fields:
    """How images are purified, where these choices ask for it."""
    section = {
        'method': Field('adp', 'how images are purified', OneOf(PURIFIERS), of=of),
        'level': Field(
            0.25,
            'standard deviation of the noise that they get first, of pixels from 0 to 1',
            POSITIVE,
            of={'purify.method': PURIFIERS[:-1]},
        ),
        'rate': Field(
            None,
            "share of the score that a step takes away; None: the method's, 0.6, as published 0.05",
            Range(0, 1, without_low=True),
            type=float,
            of={'purify.method': ASCENTS},
        ),
        'steps': Field(
            None,
            "of the ascent, or of the sampler's grid; None: 3, as published 10, sampling.steps",
            Range(1, 10_000),
            type=int,
            of={'purify.method': (*ASCENTS, 'diffpure')},
        ),
        'sampler': Field(
            None,
            "what goes back, with the other fields of the score model's sampling; None: its method",
            OneOf(METHODS),
            type=str,
            of={'purify.method': ('diffpure',)},
        ),
    }
    return fields.changeable(section)


def defence() -> Fields:
    """What stands before the classifier while it is attacked, and how both are judged."""
    of = {'eval.robustness': KNOWN, 'eval.corruptions': CORRUPTIONS}
    further = {
        'workdir': Field(
            None, 'of the score model', type=str, of={'purify.method': PURIFIERS[:-2]}
        ),
        'runs': Field(
            10,
            'fresh draws of the purifier, after the attack: of their mean logits, of one of them '
            'and of all is said how often they are right',
            FEW,
            of=of,
        ),
        'num_images': Field(200, 'the first of the test split; 0: all', STEPS, of=of),
    }
    return {**purification(of), **fields.changeable(further)}


def attack() -> Fields:
    """How the classifier is attacked."""
    section = {
        'method': Field('pgd', 'projected gradients, or those of Auto-PGD', OneOf(ATTACKS)),
        'norm': Field('linf', 'of the ball around an image', OneOf(NORMS)),
        'eps': Field((0.1, 0.3), 'its radii, of pixels from 0 to 1', POSITIVE),
        'steps': Field(40, 'of each start', COUNT),
        'draws': Field(
            4, 'of a random purifier, whose mean gradient is followed, of bpda and full', FEW
        ),
        'restarts': Field(1, 'random starts, of which the best counts', FEW),
    }
    return fields.of_choices({'eval.robustness': KNOWN}, fields.changeable(section))


# Evaluation

# Those of experiments/score_measures.py and evaluation/quality.py, which stand above configs.
EXTRACTORS = ('classifier', 'inception')
SPLITS = ('test', 'train')

EXHIBITS = Field(
    True,
    'pictures for the report: denoising, interpolation, neighbours; of latent score models '
    'reconstructions and interpolation',
)


def evaluation() -> Fields:
    """What --mode=eval measures, on the moving average of the parameters: of every experiment."""
    section = {
        'checkpoint': Field(
            None, 'its step; None: the newest. That of --mode=sample too', STEPS, type=int
        ),
        'checkpoints': Field(
            (), '(first, last): all of these steps, in place of one', STEPS, type=int
        ),
        'wait': Field(
            0.0, 'seconds for the next of them to appear, if training is under way', STEPS
        ),
        'best_by': Field(None, 'the number by which a checkpoint is named best', type=str),
        'batch_size': Field(64, 'examples that are measured at once', COUNT),
        'loss': Field(True, 'the training objective on the test split'),
    }
    return fields.changeable(section)


def score_evaluation() -> Fields:
    """What --mode=eval measures of score models."""
    bits_per_dim = {
        **ode_likelihood(),
        'num_dequantizations': Field(1, 'of every image, each with probes of its own', FEW),
        'importance_weighted': Field(
            False, 'the tighter bound from all dequantisations, which needs two probes'
        ),
        'variational_draws': Field(
            8,
            'times of the variational bound, two evaluations each; 0: no such bound',
            Range(0, 1000),
        ),
        'round_trip': Field(False, 'encode and decode the images, and report the error'),
    }
    section = {
        'exhibits': EXHIBITS,
        'bpd': Field(True, 'bits per dimension of test images'),
        **fields.of_choices({'eval.bpd': (True,)}, bits_per_dim),
    }
    return {**fields.changeable(section), **sample_evaluation()}


def ode_likelihood() -> Fields:
    """How likelihoods are measured by the ODE."""
    return {
        'num_bpd_images': Field(0, 'the first of the test split; 0: all', STEPS),
        't_min': Field(
            None, "earliest time of the likelihood; None: the SDE's", NOT_NEGATIVE, type=float
        ),
        'divergence': Field('rademacher', 'what estimates the divergence', likelihood.PROBES),
        'num_probes': Field(1, 'probes for each of these estimates', FEW),
        'solver': Field('dopri5', 'solver of the probability flow, as published', ode.SOLVERS),
        'rtol': Field(1e-5, 'its relative tolerance', POSITIVE),
        'atol': Field(1e-5, 'its absolute tolerance', POSITIVE),
        'precision': Field(
            'highest',
            'products of float32 numbers, as in model.precision; coarser ones add noise to the '
            'divergence, which the solver then follows in tiny steps',
            layers.PRECISIONS,
        ),
        'per_image_steps': Field(
            True,
            'each image has steps of its own; otherwise one step size for a batch, as published',
        ),
    }


def evidence_evaluation() -> Fields:
    """What --mode=eval measures of the evidence bound of latent score models."""
    evidence = {
        **ode_likelihood(),
        'cross_entropy_draws': Field(
            64,
            'times at which the cross-entropy of the code of every test image is sampled, to be '
            'compared with that of the first by the ODE; 0: not at all',
            Range(0, 1000),
        ),
    }
    section = {
        'exhibits': EXHIBITS,
        'bpd': Field(True, 'bits per dimension of test images'),
        **fields.of_choices({'eval.bpd': (True,)}, evidence),
    }
    return fields.changeable(section)


def simulated_evaluation() -> Fields:
    """What --mode=eval measures of score models of vectors."""
    section = {
        'likelihood': Field(True, 'log-densities of simulated states at t_min, by the ODE'),
        **fields.of_choices(
            {'eval.likelihood': (True,)},
            {
                'solver': Field('dopri5', 'solver of the probability flow', ode.SOLVERS),
                'rtol': Field(1e-4, 'its relative tolerance', POSITIVE),
                'atol': Field(1e-4, 'its absolute tolerance', POSITIVE),
            },
        ),
        'samplers': Field(
            ('pc', 'ode'),
            'samplers whose states are compared with simulated ones: pc is Euler-Maruyama',
            OneOf(WITHOUT_KERNEL),
        ),
    }
    return fields.changeable(section)


def sample_evaluation() -> Fields:
    """What --mode=eval measures of samples."""
    comparison = {
        'reference': Field(
            'test', 'split that samples are compared with; published FIDs: train', OneOf(SPLITS)
        ),
        'max_features': Field(
            10_000,
            'images of it that are compared one by one; moments are of all',
            Range(2, 10**9),
        ),
        'extrapolate': Field(False, 'Frechet distances at infinitely many samples too'),
        'cache_dir': Field(
            None, 'where features of data are kept; None: features/ in the workdir', type=str
        ),
    }
    section = {
        'samplers': Field(
            ('pc', 'ode'),
            'samplers that are timed, and compared with data as eval.quality says',
            OneOf(METHODS),
        ),
        'num_samples': Field(
            0,
            'images of each sampler; 0: sampling.num_samples',
            STEPS,
            of={'eval.samplers': METHODS, 'eval.quality': EXTRACTORS},
        ),
        'quality': Field(
            (),
            'networks by whose features samples are compared with data; (): none',
            OneOf(EXTRACTORS),
            type=str,
        ),
        'classifier_workdir': Field(
            None,
            'of a run of this project',
            type=str,
            of={'eval.quality': ('classifier',)},
        ),
        'inception_weights': Field(
            None,
            'a .pth or .npz, see docs/quality.md',
            type=str,
            of={'eval.quality': ('inception',)},
        ),
        **fields.of_choices({'eval.quality': EXTRACTORS}, comparison),
    }
    return fields.changeable(section)


def classifier_evaluation() -> Fields:
    """What --mode=eval measures of classifiers."""
    section = {
        'noise_levels': Field(
            (0.1, 0.25, 0.5, 0.75, 1.0),
            'accuracy and cross-entropy are measured on clean images, and at these times over T',
            Range(0, 1, without_low=True),
            length=Range(0, 1000),
            of={'training.noise': (True,)},
        ),
        'gradient_noise': Field(
            0,
            'batches of training data by which the noise of gradients is measured, for sgd and '
            'svag; 0: it is not',
            STEPS,
        ),
        'robustness': Field(
            (),
            'what attackers know: the classifier, purified images, the gradient of all; (): there '
            'are no attackers',
            OneOf(KNOWN),
            type=str,
        ),
        'corruptions': Field(
            (),
            'what is done to images, in five strengths, with and without purification; (): nothing',
            OneOf(CORRUPTIONS),
            type=str,
        ),
    }
    return fields.changeable(section)


# Kinds of experiments: what is trained. A new one is one more entry: all its fields, of its network
# of this name, or of its default network for None. One without a choice of networks gets None.
EXPERIMENTS: dict[str, Callable[[str | None], Fields]] = {
    'score_model': score_model,
    'classifier': noise_classifier,
    'latent_score_model': latent_score_model,
    'simulated_score_model': simulated_score_model,
    'differential_equation': differential_equation,
}


# What follows


def is_fixed(experiment: str) -> Callable[[str], bool]:
    """Whether a field of such an experiment, by its dotted name, is fixed for a run."""
    return fields.is_fixed(EXPERIMENTS[experiment](None))


def completed(values: Values) -> Values:
    """The content of a config.json, which an older version may have written, as a config of today:
    with defaults for the fields that are newer, and with tuples, which JSON has as lists.

    Raises InputError for networks and experiments that do not exist, and if no network is named of
    an experiment that has a choice of them.
    """
    name = values.get('model', {}).get('name')
    # Before there was this field there were these two.
    known = 'classifier' if name in models.CLASSIFIERS else 'score_model'
    declared = choose(EXPERIMENTS, values.get('experiment', known), 'experiment')
    if name is None and fields.networks(declared(None)):
        raise InputError('model.name: missing, and the other fields depend on it')
    return fields.completed({'experiment': known, **values}, declared(name))


def recorded(values: Values) -> ConfigDict:
    """The content of a config.json, of this version or of an older one, as the config that it was
    written from: the command line can set its fields as it can those of a config file.

    Raises InputError as `completed` does, and TypeError for a value of another type than declared.
    """
    found = completed(values)
    config = fields.config(EXPERIMENTS[found['experiment']](found.get('model', {}).get('name')))
    config.update(found)
    return config

"""Every field of a config, once, with its default. An experiment takes a copy and changes what
differs.

Fields that are None stand for a default that depends on the SDE; they can be set from the command
line.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """CIFAR-10 sized defaults: DDPM++ with the VP SDE, as in Song et al. 2021."""
    return ConfigDict(
        {
            'seed': 42,
            'mesh': mesh(),
            'data': data(),
            'sde': sde(),
            'model': ncsnpp(),
            'training': training(),
            'optim': optim(),
            'sampling': sampling(),
            'task': task(),
            'eval': evaluation(),
            'debug': debug(),
        }
    )


def classifier() -> ConfigDict:
    """The fields that a classifier has: of the same sections, without samplers and likelihood."""
    return ConfigDict(
        {
            'seed': 42,
            'mesh': mesh(),
            'data': data(),
            'sde': sde(),
            'model': wideresnet(),
            'training': run(),
            'optim': optim(),
            'eval': classifier_evaluation(),
            'debug': debug(),
        }
    )


def mesh() -> dict:
    """How many devices share what; a batch is split over all of them. -1: all that are left."""
    return {
        'data': -1,  # groups of devices, each of which has the parameters once
        'fsdp': 1,  # devices of a group, over which parameters and optimiser are split
    }


def data() -> dict:
    """Images, and how they become arrays."""
    return {
        'source': 'cifar10',  # mnist5k | digits | npz:PATH | folder:PATH | a name of TFDS
        'data_dir': placeholder(str),  # where TFDS keeps its data; None: TFDS's own default
        'image_size': (32, 32),  # height, width; others are brought to it as `fit` says
        'channels': 3,
        'crop_size': placeholder(int),  # side of the square cut from the centre before `fit`
        'fit': 'crop',  # crop the centre | squash: scale both sides | pad with black
        'test_fraction': 0.1,  # held out where the source has no test split
        'random_flip': True,
        'dequantize': False,  # uniform noise over the bins of 8-bit values in training
        'centered': True,  # [-1, 1], otherwise [0, 1]
    }


def sde() -> dict:
    """The SDE and its fields; the others must stay None."""
    return {
        'name': 'vp',  # vp | subvp | ve | edm | cosine | geometric | flow | ddpm | smld
        'beta_min': placeholder(float),  # vp, subvp, ddpm: noise rate at t = 0 and T
        'beta_max': placeholder(float),
        'sigma_min': placeholder(float),  # ve, edm, geometric, smld: noise level at t = 0 and T
        'sigma_max': placeholder(float),
        'log_snr_min': placeholder(float),  # cosine: log signal-to-noise ratio at T and t = 0
        'log_snr_max': placeholder(float),
        'num_scales': placeholder(int),  # ddpm, smld: levels of the chain
    }


# Networks: how the output becomes a score, and the fields of models/<name>.py. An experiment takes
# one of them as config.model.

COMPUTATION = {
    'dtype': 'float32',  # float32 | bfloat16: of computation; parameters are float32
    'remat': False,  # the gradient computes activations again: less memory, more time
}


def ncsnpp() -> dict:
    """NCSN++ and DDPM++."""
    return {
        'name': 'ncsnpp',
        'parameterization': 'noise',  # noise | score | edm | ddpm | smld: see parameterization.py
        'nf': 128,
        'ch_mult': (1, 2, 2, 2),
        'num_res_blocks': 4,
        'attn_resolutions': (16,),
        'dropout': 0.1,
        'resamp_with_conv': True,
        'conditional': True,
        'fir': False,
        'fir_kernel': (1.0, 3.0, 3.0, 1.0),
        'skip_rescale': True,
        'resblock_type': 'biggan',
        'progressive': 'none',
        'progressive_input': 'none',
        'progressive_combine': 'sum',
        'embedding_type': 'positional',
        'fourier_scale': 16.0,
        'init_scale': 0.0,
        'nonlinearity': 'swish',
        'scale_by_sigma': False,
        'num_classes': 0,  # > 0: the network is given the labels of the data
        'input_fourier': (),  # edm: sin and cos of 2^n pi x for each n are input too
        **COMPUTATION,
    }


def ddpm() -> dict:
    """The U-Net of DDPM."""
    return {
        'name': 'ddpm',
        'parameterization': 'noise',
        'nf': 128,
        'ch_mult': (1, 2, 2, 2),
        'num_res_blocks': 2,
        'attn_resolutions': (16,),
        'dropout': 0.1,
        'resamp_with_conv': True,
        'conditional': True,
        'nonlinearity': 'swish',
        'normalization': 'GroupNorm',
        'scale_by_sigma': False,
        **COMPUTATION,
    }


def ncsnv2() -> dict:
    """The RefineNets of NCSNv2. Their noise levels are those of the SMLD chain."""
    return {
        'name': 'ncsnv2_64',  # ncsnv2_64 | ncsnv2_128 | ncsnv2_256: the depth for this image size
        'parameterization': 'smld',
        'nf': 128,
        'normalization': 'InstanceNorm++',
        'nonlinearity': 'elu',
        'interpolation': 'bilinear',
        'scale_by_sigma': True,
        **COMPUTATION,
    }


def ncsn() -> dict:
    """The RefineNet of NCSN, which has parameters of its own for every level of the SMLD chain."""
    return {**ncsnv2(), 'name': 'ncsn', 'scale_by_sigma': False}


def wideresnet() -> dict:
    """The noise-conditional classifier."""
    return {
        'name': 'wideresnet',
        'blocks_per_group': 4,
        'channel_multiplier': 10,
        'num_classes': 10,
        'embedding_size': 128,
        'fourier_scale': 16.0,
        'channel_mean': (),  # what images are normalised by, one for each channel; (): by 0 and 1
        'channel_std': (),
        **COMPUTATION,
    }


def training() -> dict:
    """Score matching, and the run."""
    return {
        **run(),
        'weighting': 'sigma2',  # sigma2 | likelihood | edm
        'reduce_mean': True,  # mean over pixels, otherwise half of their sum
        'label_dropout': 0.0,  # share of images without their label, for task.guidance
        'sample_every': 50_000,  # steps between grids of samples; 0: none
        'num_samples': 64,  # images of such a grid
    }


def run() -> dict:
    """The times that an objective is taken at, and the run."""
    return {
        'batch_size': 128,
        'num_steps': 1_300_000,
        # uniform | stratified | importance | log_snr | log_uniform | log_normal | levels
        'time_sampler': 'uniform',
        'log_sigma': (-1.2, 1.2),  # log_normal: mean and standard deviation of log(sigma / alpha)
        't_min': placeholder(float),  # earliest time; None: the SDE's
        'steps_per_dispatch': 5,  # updates in one compiled program; divides all periods below
        'log_every': 50,
        'eval_every': 100,  # steps between losses of one test batch
        'checkpoint_every': 10_000,
        'keep_checkpoints': 3,  # the newest; besides these stay those of the next two fields
        'keep_every': 50_000,  # at multiples of so many steps; 0: none
        'keep_best': 1,  # so many of the least loss of the test batch
        # updates in a row without effect, as loss or gradient were not finite, that end training
        'max_skipped': 20,
    }


def optim() -> dict:
    """Adam, and the moving average of the parameters."""
    return {
        'lr': 2e-4,
        'warmup': 5000,  # steps of linear warm-up
        'cosine_decay': False,  # to 0 at training.num_steps
        'beta1': 0.9,
        'beta2': 0.999,
        'eps': 1e-8,
        'weight_decay': 0.0,
        'grad_clip': 1.0,  # global norm; <= 0: none
        'ema_rate': 0.9999,
        'ema_warmup': False,  # a faster average at first: min(ema_rate, (1 + step) / (10 + step))
    }


def debug() -> dict:
    """Looking for errors, at the price of time and memory."""
    return {
        'nans': False,  # training stops at the first number that is not finite, and says where
    }


def sampling() -> dict:
    """From noise to images, for --mode=sample and the grids of training."""
    return {
        # pc | picard | ode | sde | adaptive_sde, or with few steps euler | heun | dpmpp_2s |
        # dpmpp_2m | dpmpp_3m | dpmpp_2m_sde | unipc_2 | unipc_3
        'method': 'pc',
        'num_samples': 64,
        'batch_size': 64,
        # last time of the reverse solve; None: the SDE's, and for pc on a chain's uniform grid 0
        't_min': placeholder(float),
        'temperature': 1.0,  # scale of all noise; below 1: likelier, less varied images
        # the last state without the noise of its step; of solvers without noise E[x_0 | x], for one
        # evaluation more
        'denoise': True,
        # solvers on a time grid
        'steps': 1000,
        'grid': 'uniform',  # uniform | log_snr | karras
        # pc: predictor-corrector; picard: a predictor, parallel in time
        # euler_maruyama | reverse_diffusion | ancestral | ancestral_fixed_large | ddim | none
        'predictor': 'euler_maruyama',
        # noise of the predictor: 1 the reverse SDE, 0 the probability flow; None: 0 of ddim, else
        # 1; of dpmpp_2m_sde too
        'eta': placeholder(float),
        'corrector': 'none',  # langevin | annealed_langevin | none
        'corrector_steps': 1,
        'snr': 0.16,  # signal-to-noise ratio of the corrector's steps
        'batch_mean_norm': False,  # `langevin` takes mean norms over the batch, as published
        # euler, heun
        'churn': 0.0,  # noise added on the way, S_churn of EDM, shared by all steps; 0: none
        'churn_min': 0.0,  # levels sigma / alpha between which it is added; None: to the highest
        'churn_max': placeholder(float),
        'noise_scale': 1.0,  # its standard deviation: EDM has up to 1.007, against lost detail
        'window': 64,  # picard: steps that are evaluated at once
        # picard: change of a state that has settled, in parts of the noise of its step
        'picard_tolerance': 0.1,
        # ode: probability flow
        # euler | heun | midpoint | ralston | reversible_heun | bosh3 | tsit5 | dopri5 | dopri8 and,
        # for up to a few hundred dimensions, implicit_euler | kvaerno3 | kvaerno4 | kvaerno5
        'solver': 'tsit5',
        'per_image_steps': True,  # otherwise one step size for a batch, as published
        # sde: the reverse SDE by diffrax, with noise of `eta`
        'sde_solver': 'shark',  # euler | heun | midpoint | ralston | sea | sra1 | shark | spark
        # ode, sde: steps as the tolerances ask for, otherwise `steps` on the `grid`
        'adaptive': True,
        # sde, adaptive_sde; as published: the absolute one is one of 256 values in [-1, 1]
        'sde_rtol': 0.02,
        'sde_atol': 0.0078,
        'rtol': 1e-5,
        'atol': 1e-5,
    }


def task() -> dict:
    """What --mode=sample draws images from besides noise; --task=NAME sets `name`."""
    return {
        'name': 'none',  # none | class | inpaint | colourise | superresolve | deblur | linear
        # Strength: of classes above 1 more typical, less varied images; of dps its step size, 0.3
        # to 1; of pigdm 1. `projection` has none.
        'guidance': 1.0,
        'label': placeholder(int),  # the class; None: each in turn
        # class: the workdir of a classifier, which guides networks that know no classes, and judges
        # the images
        'classifier': placeholder(str),
        # The other tasks: images, how they are measured, and how one with this measurement is drawn
        'images': placeholder(str),  # FILE.png | folder:PATH | npz:PATH; None: the test split
        'num_images': 8,  # the first of them
        'samples_each': 4,
        'measured': False,  # the images are measurements already: grey, small or blurred
        'method': 'projection',  # projection | dps | pigdm
        'noise_std': 0.0,  # of noise that is added to measurements, or that they have
        'data_std': 0.5,  # pigdm: standard deviation of pixels over the data
        'mask': placeholder(str),  # inpaint: an image of data.image_size, white where it is known
        'factor': placeholder(int),  # superresolve: side of the squares whose mean is known
        'blur_std': placeholder(float),  # deblur: of the Gaussian, in pixels
        'matrix': placeholder(str),  # linear: FILE.npy, an array [m, height * width * channels]
    }


def evaluation() -> dict:
    """What --mode=eval measures, on the moving average of the parameters."""
    return {
        **evaluated(),
        'batch_size': 64,
        'loss': True,  # the training objective on the test split
        'exhibits': True,  # pictures for the report: denoising, interpolation, neighbours
        'bpd': True,  # bits per dimension of dequantised test images
        'num_bpd_images': 0,  # the first of the test split; 0: all
        't_min': placeholder(float),  # earliest time of the likelihood; None: the SDE's
        'divergence': 'rademacher',  # rademacher | gaussian | exact
        'num_probes': 1,
        'num_dequantizations': 1,  # of every image, each with probes of its own
        'importance_weighted': False,  # the tighter bound from all dequantisations; two probes
        'variational_draws': 8,  # times of the variational bound, two evaluations each; 0: none
        'round_trip': False,  # encode and decode the images, and report the error
        'solver': 'dopri5',  # as published; or another of sampling.solver
        'rtol': 1e-5,
        'atol': 1e-5,
        'per_image_steps': True,  # otherwise one step size for a batch, as published
        'samplers': ('pc', 'ode'),  # timed, and compared with data as the fields below say
        'num_samples': 0,  # images of each sampler; 0: sampling.num_samples
        # networks by whose features samples are compared with data: classifier, inception; (): none
        'quality': (),
        'classifier_workdir': placeholder(str),  # classifier: of a run of this project
        'inception_weights': placeholder(str),  # inception: a .pth or .npz, see README.md
        'reference': 'test',  # split that samples are compared with; published FIDs: train
        'max_features': 10_000,  # images of it that are compared one by one; moments are of all
        'extrapolate': False,  # Frechet distances at infinitely many samples too
        'cache_dir': placeholder(str),  # of features of data; None: `features` in the workdir
    }


def evaluated() -> dict:
    """Which checkpoints --mode=eval measures."""
    return {
        'checkpoint': placeholder(int),  # step; None: the newest. That of --mode=sample too
        'checkpoints': (),  # (first, last): all of these steps, in place of one
        'wait': 0.0,  # seconds for the next of them to appear, if training is under way
        'best_by': placeholder(str),  # name of a number: which checkpoint is best by it
    }


def classifier_evaluation() -> dict:
    """What --mode=eval measures of a classifier, on the moving average of the parameters."""
    return {
        **evaluated(),
        'batch_size': 64,
        'loss': True,  # the training objective on the test split
        # Accuracy and cross-entropy on the test split: on clean images, and at these times over T.
        'noise_levels': (0.1, 0.25, 0.5, 0.75, 1.0),
    }

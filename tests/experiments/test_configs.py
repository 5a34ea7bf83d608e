"""Every experiment in configs/ resolves, builds, and has the numbers of the published one."""

import dataclasses
import functools
import importlib
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import run_lib
import sde_lib
from choices import choose
from configs import base
from evaluation import bits_per_dim
from experiments import experiment, samplers
from tests.support import parameter_counts

ROOT = pathlib.Path(__file__).parents[2]
CLASSIFIERS = ['ve/cifar10_classifier', 've/mnist_classifier']
ALL = sorted(
    path.relative_to(ROOT / 'configs').with_suffix('').as_posix()
    for path in (ROOT / 'configs').glob('*/**/*.py')
    if path.stem not in ('__init__', 'base')
)
EXPERIMENTS = [name for name in ALL if name not in CLASSIFIERS]
PUBLISHED = [
    *[f'subvp/cifar10_{network}_continuous' for network in ('ddpm', 'ddpmpp', 'ddpmpp_deep')],
    *[f'subvp/cifar10_{network}_continuous' for network in ('ncsnpp', 'ncsnpp_deep')],
    've/bedroom_ncsnpp_continuous',
    've/celeba_ncsnpp',
    've/celebahq_256_ncsnpp_continuous',
    've/celebahq_ncsnpp_continuous',
    've/church_ncsnpp_continuous',
    've/cifar10_ddpm',
    've/cifar10_ncsnpp',
    've/cifar10_ncsnpp_continuous',
    've/cifar10_ncsnpp_deep_continuous',
    've/ffhq_256_ncsnpp_continuous',
    've/ffhq_ncsnpp_continuous',
    *[f've/ncsn/celeba{techniques}' for techniques in ('', '_5', '_124', '_1245')],
    *[f've/ncsn/cifar10{techniques}' for techniques in ('', '_5', '_124', '_1245')],
    *[f've/ncsnv2/{data}' for data in ('bedroom', 'celeba', 'cifar10')],
    'vp/cifar10_ddpmpp',
    'vp/cifar10_ddpmpp_continuous',
    'vp/cifar10_ddpmpp_deep_continuous',
    'vp/cifar10_ncsnpp',
    'vp/cifar10_ncsnpp_continuous',
    'vp/cifar10_ncsnpp_deep_continuous',
    *[f'vp/ddpm/{data}' for data in ('bedroom', 'celebahq', 'church', 'cifar10')],
    *[f'vp/ddpm/cifar10_{kind}' for kind in ('continuous', 'unconditional')],
]
NEW = [
    *[f'edm/{name}' for name in ('cifar10_ddpmpp', 'cifar10_ncsnpp', 'imagenet64_ddpmpp')],
    *[f'{sde}/mnist_ddpmpp' for sde in ('subvp', 've', 'vp')],
    'vp/mnist_classes_ddpmpp',
    'vp/patches_ddpmpp',
]


def module(name):
    return importlib.import_module('configs.' + name.replace('/', '.'))


def load(name):
    return module(name).get_config()


def test_the_experiments_are_the_39_published_ones_and_the_new_ones():
    assert len(PUBLISHED) == 39
    assert set(CLASSIFIERS) < set(ALL)
    assert set(EXPERIMENTS) == set(PUBLISHED) | set(NEW)


@pytest.mark.parametrize('name', ALL)
def test_an_experiment_says_how_it_is_run(name):
    assert f'--config=configs/{name}.py' in module(name).__doc__


def test_no_two_experiments_name_the_same_workdir():
    docs = [module(name).__doc__ for name in ALL]
    workdirs = [doc.split('--workdir=')[1].split()[0] for doc in docs]
    assert len(set(workdirs)) == len(workdirs)


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_every_experiment_builds_all_that_it_names(name):
    config, built = load(name), create(name)
    params, score = traced(name)
    assert score.shape == (1, *built.image_shape)
    experiment.create_loss(config, built)
    jax.eval_shape(experiment.create_optimizer(config).init, params)
    bits_per_dim.create(config, built)
    # Which takes no corrector: some of them name one.
    for method in set(samplers.METHODS) - {'picard'}:
        samplers.create_sampler(config, built, method)
    run_lib.check_periods(config.training)


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_every_classifier_builds_all_that_it_names(name):
    config = load(name)
    built = experiment.create_experiment(config)
    params = jax.eval_shape(built.init_params, jax.random.key(0))
    loss = experiment.create_loss(config, built)
    batch = {'image': jnp.zeros((1, *built.image_shape), jnp.uint8), 'label': jnp.zeros(1, int)}
    value = jax.eval_shape(lambda p: loss(p, jax.random.key(0), batch, True), params)
    assert value.shape == (1,)
    jax.eval_shape(experiment.create_optimizer(config).init, params)
    experiment.create_class_scores(config, built)
    run_lib.check_periods(config.training)


SET_BY_SDE = {'sigma_min', 'sigma_max', 'num_scales'}


def network_fields(model):
    network = choose(experiment.models.MODELS, model, 'model.name')
    return {field.name for field in dataclasses.fields(network)}


@pytest.mark.parametrize('model', ['ncsnpp', 'ddpm', 'ncsnv2_64', 'ncsn', 'wideresnet'])
def test_base_has_every_field_of_the_networks_and_no_other(model):
    fields = set(getattr(base, model.split('_')[0])())
    network = network_fields(model)
    # Set by the SDE, the data and the parameterisation.
    derived = SET_BY_SDE | {'parent', 'name', 'centered', 'out_channels'}
    derived |= {'num_classes'} if model == 'ncsn' else set()
    assert network - derived == fields - {'name', 'parameterization', 'input_fourier'}


def test_the_mnist_runs_differ_in_the_sde_and_what_depends_on_it():
    vp, subvp = (load(f'{sde}/mnist_ddpmpp').to_dict() for sde in ('vp', 'subvp'))
    vp['sde']['name'] = 'subvp'
    assert vp == subvp


# Networks, traced once for all the experiments that share one


class Initialising:
    """A network whose `apply` makes its own parameters, from a key in their place."""

    def __init__(self, network):
        self.network, self.params = network, None

    def apply(self, variables, *inputs, rngs=None, **options):
        key = variables['params']
        y, variables = self.network.init_with_output(key, *inputs, **options)
        self.params = variables['params']
        return y


@functools.cache
def create(name):
    return experiment.create_experiment(load(name))


@functools.cache
def trace(network, parameterization, image_shape, name):
    """Shapes of the parameters and of the score of one image."""
    initialising = Initialising(network)
    built = dataclasses.replace(create(name), network=initialising)
    classes = jnp.zeros(1, jnp.int32) if built.num_classes else None

    def init_and_score(key):
        score = built.score_fn(key, classes)(jnp.zeros((1, *image_shape)), jnp.ones(1))
        return initialising.params, score

    return jax.eval_shape(init_and_score, jax.random.key(0))


SHARED = {}


def traced(name):
    """Shapes of the parameters and of the score of an experiment."""
    built = create(name)
    alike = built.network, load(name).model.parameterization, built.image_shape
    return trace(*alike, SHARED.setdefault(alike, name))


# Numbers of the published files


RECORD = json.loads((ROOT / 'tests' / 'data' / 'published_configs.json').read_text())
# What the published files forgot, misspelt or left to the user.
REPAIRS = {
    've/ncsn/celeba': {'training.sde': 'vesde'},
    've/ncsnv2/bedroom': {'training.continuous': False},
    've/celebahq_ncsnpp_continuous': {'training.n_jitted_steps': 5},
    've/ffhq_ncsnpp_continuous': {'training.n_jitted_steps': 5},
}
SDES = {'vp': 'vpsde', 'ddpm': 'vpsde', 'subvp': 'subvpsde', 've': 'vesde', 'smld': 'vesde'}
DATA = {
    'CIFAR10': 'cifar10',
    'CELEBA': 'celeb_a',
    'CelebAHQ': 'folder:data/celebahq',
    'FFHQ': 'folder:data/ffhq',
    'bedroom': 'lsun/bedroom',
    'church_outdoor': 'lsun/church_outdoor',
}


def published(name):
    """All that a published file says, over its defaults, without what is misspelt."""
    values = dict(RECORD['files'][name])
    defaults = RECORD['defaults'].get(values.pop('defaults'), {})
    values = {**defaults, **values, **REPAIRS.get(name, {})}
    values['data.dataset'] = values.pop('data.category', values['data.dataset'])
    return {key: v for key, v in values.items() if key not in MISSPELT}


MISSPELT = ('training.loss', 'training.continuouse')


def in_published_words(config):
    """The same keys and values, of one of our configs."""
    sde, model = create_sde(config), config.model
    training, sampler, optim = config.training, config.sampling, config.optim
    chain = isinstance(sde, sde_lib.Chain)
    words = {
        'seed': config.seed,
        'data.dataset': {ours: theirs for theirs, ours in DATA.items()}[config.data.source],
        'data.image_size': config.data.image_size[0],
        'data.num_channels': config.data.channels,
        'data.random_flip': config.data.random_flip,
        'data.centered': config.data.centered,
        'data.uniform_dequantization': config.data.dequantize,
        'training.sde': SDES[config.sde.name],
        'training.continuous': not chain,
        'training.batch_size': training.batch_size,
        'training.n_iters': training.num_steps + 1,
        'training.n_jitted_steps': training.steps_per_dispatch,
        'training.log_freq': training.log_every,
        'training.eval_freq': training.eval_every,
        'training.snapshot_freq': training.keep_every,
        'training.snapshot_freq_for_preemption': training.checkpoint_every,
        'training.snapshot_sampling': training.sample_every == training.keep_every,
        'training.likelihood_weighting': training.weighting == 'likelihood',
        'training.reduce_mean': training.reduce_mean,
        'sampling.method': sampler.method,
        'sampling.predictor': {'ancestral_fixed_large': 'ancestral_sampling'}.get(
            sampler.predictor, sampler.predictor
        ),
        'sampling.corrector': {'annealed_langevin': 'ald'}.get(
            sampler.corrector, sampler.corrector
        ),
        'sampling.n_steps_each': sampler.corrector_steps,
        'sampling.snr': sampler.snr,
        'sampling.probability_flow': sampler.eta == 0,
        'model.num_scales': sampler.steps,
        'model.ema_rate': optim.ema_rate,
        'optim.optimizer': 'Adam',
        **{f'optim.{key}': optim[key] for key in ('lr', 'beta1', 'eps', 'weight_decay', 'warmup')},
        'optim.grad_clip': optim.grad_clip or -1,
    }
    for key in ('sigma_min', 'sigma_max', 'beta_min', 'beta_max'):
        if hasattr(sde, key):
            words[f'model.{key}'] = getattr(sde, key)
    if sampler.predictor != 'none':  # Without one, the published sampler cannot.
        words['sampling.noise_removal'] = sampler.denoise
    return words | {f'model.{key}': model[key] for key in model if key != 'parameterization'}


def create_sde(config):
    fields = {key: v for key, v in config.sde.items() if key != 'name' and v is not None}
    return sde_lib.create(config.sde.name, **fields)


@pytest.mark.parametrize('name', PUBLISHED)
def test_every_number_is_that_of_the_published_file(name):
    config, theirs = load(name), published(name)
    ours = in_published_words(config)
    common = theirs.keys() & ours.keys()
    found = {key: list(v) if isinstance(v := ours[key], tuple) else v for key in common}
    assert found == {key: theirs[key] for key in common}
    # What has no counterpart are fields that the SDE or the network ignores.
    ignored = set(theirs) - common
    network = network_fields(config.model.name) - SET_BY_SDE
    assert not {key.removeprefix('model.') for key in ignored} & network
    assert ignored <= {'sampling.noise_removal'} | {key for key in theirs if key[:6] == 'model.'}


@pytest.mark.parametrize('name', PUBLISHED)
def test_the_network_is_told_what_it_was_told(name):
    """Parameterisation, times and grid follow from the SDE, and whether it is discrete."""
    config, theirs = load(name), published(name)
    continuous = theirs['training.continuous']
    ends = {'vpsde': ('noise', 'ddpm', 1e-3), 'subvpsde': ('noise', None, 1e-3)}
    told, told_levels, t_min = ends.get(theirs['training.sde'], ('score', 'smld', 1e-5))
    assert config.model.parameterization == (told if continuous else told_levels)
    assert config.training.time_sampler == ('uniform' if continuous else 'levels')
    assert config.sampling.grid == 'uniform'
    sde = create_sde(config)
    if continuous:
        assert (sde.t_min if config.sampling.t_min is None else config.sampling.t_min) == t_min
        assert (config.training.t_min, config.eval.t_min, sde.t_min) == (None, None, 1e-5)
    else:
        assert (config.sampling.t_min, config.sampling.steps) == (None, sde.num_scales)


@pytest.mark.parametrize('name', [name for name in PUBLISHED if not name.endswith('continuous')])
def test_discrete_samplers_visit_every_level_once(name):
    config = load(name)
    sde = create_sde(config)
    times = samplers.METHODS['pc'](config.sampling, sde).keywords['times']
    levels = sde.level(times[:-1])
    np.testing.assert_array_equal(levels, np.arange(sde.num_scales)[::-1])
    assert times[-1] == 0.0
    # In log signal-to-noise ratio the ODE cannot reach the data.
    assert samplers.METHODS['ode'](config.sampling, sde).keywords['t_min'] == sde.t_min > 0


@pytest.mark.parametrize('name', ['vp/cifar10_ddpmpp', 've/cifar10_ncsnpp'])
def test_discrete_samplers_end_at_the_data(name):
    """With the exact score of data that are all 0.3, the last step finds 0.3."""
    config = load(name)
    sde = create_sde(config)
    sample = functools.partial(samplers.METHODS['pc'](config.sampling, sde), sde=sde)

    def score_fn(x, t):
        return -(x - 0.3 * sde.alpha(t)[:, None]) / sde.sigma(t)[:, None] ** 2

    image_keys = keys.per_image(jax.random.key(0), 3)
    np.testing.assert_allclose(sample(image_keys, score_fn, (2,)).x, 0.3, atol=1e-5)


@pytest.mark.parametrize(
    ('name', 'images', 'half_life'),
    [
        ('edm/cifar10_ddpmpp', 200e6, 0.5e6),
        ('edm/cifar10_ncsnpp', 200e6, 0.5e6),
        ('edm/imagenet64_ddpmpp', 2500e6, 50e6),
    ],
)
def test_edm_runs_are_as_long_as_published_in_images(name, images, half_life):
    config = load(name)
    batch_size = config.training.batch_size
    assert 0 <= images - config.training.num_steps * batch_size < 5 * batch_size
    assert 0 <= 10e6 - config.optim.warmup * batch_size < batch_size
    assert config.optim.ema_rate ** (half_life / batch_size) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ('name', 'evaluations'),
    [('edm/cifar10_ddpmpp', 35), ('edm/cifar10_ncsnpp', 35), ('edm/imagenet64_ddpmpp', 79)],
)
def test_edm_samples_with_as_many_evaluations_as_published(name, evaluations):
    config = load(name)
    sde = create_sde(config)
    create = samplers.METHODS[config.sampling.method]
    sample = functools.partial(
        create(config.sampling, sde), sde=sde, denoise=config.sampling.denoise
    )
    drawn = sample(
        keys.per_image(jax.random.key(0), 2), lambda x, t: -x / (1 + t[:, None] ** 2), (2,)
    )
    np.testing.assert_array_equal(drawn.nfe, evaluations)


def test_celeba_alone_is_cropped():
    for name in PUBLISHED:
        expected = 140 if published(name)['data.dataset'] == 'CELEBA' else None
        assert load(name).data.crop_size == expected, name


# Numbers of parameters


# In millions, as given by Song et al. 2021 and Ho et al. 2020 (appendix B). The DDPM of the former
# has one attention block at 16 pixels on the way up, that of the latter has three.
COUNTS = {
    've/cifar10_ncsnpp_continuous': (62.76, 0),
    'vp/cifar10_ddpmpp_continuous': (61.80, 0),
    'vp/ddpm/cifar10': (35.7, 2 * parameter_counts.attention(256)),
    'vp/ddpm/church': (114, 2 * parameter_counts.attention(512)),
}


def count(name):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(traced(name)[0]))


@pytest.mark.parametrize('name', COUNTS)
def test_networks_have_as_many_parameters_as_published(name):
    expected, missing = COUNTS[name]
    digits = len(str(expected).partition('.')[2])
    assert f'{(count(name) + missing) / 1e6:.{digits}f}' == f'{expected:.{digits}f}'


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_networks_have_as_many_parameters_as_arithmetic_says(name):
    config = load(name)
    if config.model.name in parameter_counts.STAGES:
        expected = parameter_counts.refinenet(config.model, config.sde.num_scales)
    else:
        size, channels = config.data.image_size[0], config.data.channels
        expected = parameter_counts.unet(config.model, size, channels)
    assert count(name) == expected

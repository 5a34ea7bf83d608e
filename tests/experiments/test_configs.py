"""Every experiment in configs/ resolves, builds, and has the numbers of the published one."""

import dataclasses
import functools
import importlib
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import equations
import keys
import models
import run_lib
import sampling
import sde_lib
from choices import choose
from devices import sharding
from experiments import image_drawing, kinds, reading, score_measures, validation
from experiments.score_model import MIXING_LOGIT
from parameterization import Process
from tests.support import parameter_counts

ROOT = pathlib.Path(__file__).parents[2]
CLASSIFIERS = [
    'svag/digits',
    *[
        f've/{name}'
        for name in ('cifar10_classifier', 'mnist_classifier', 'mnist_classifier_clean')
    ],
]
LATENT_SMALL = [
    *[f'lsgm/small/{stage}' for stage in ('autoencoder', 'prior', 'joint')],
    *('lsgm/small/convolutional_autoencoder', 'lsgm/small/convolutional'),
]
LATENT_PUBLISHED = [
    f'lsgm/{data}' for data in ('mnist', 'omniglot', 'cifar10', 'cifar10_nll', 'celebahq_256')
]
LATENT = [*LATENT_SMALL, *LATENT_PUBLISHED, *[f'{name}_autoencoder' for name in LATENT_PUBLISHED]]
ALL = sorted(
    path.relative_to(ROOT / 'configs').with_suffix('').as_posix()
    for path in (ROOT / 'configs').glob('*/**/*.py')
    if path.stem not in ('__init__', 'base')
)
SIMULATED = ['simulated/double_well']
EQUATIONS = [name for name in ALL if name.startswith('deqgan/')]
OTHERS = (*CLASSIFIERS, *LATENT, *SIMULATED, *EQUATIONS)
EXPERIMENTS = [name for name in ALL if name not in OTHERS]
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
EDM_CIFAR10 = [f'edm/cifar10_{kind}{net}' for kind in ('', 'cond_') for net in ('ddpmpp', 'ncsnpp')]
EDM_FACES = [
    f'edm/{data}_{net}' for data in ('ffhq64', 'afhqv2_64') for net in ('ddpmpp', 'ncsnpp')
]
NEW = [
    *EDM_CIFAR10,
    *EDM_FACES,
    *('edm/imagenet64_adm', 'edm/imagenet64_ddpmpp'),
    *[f'{sde}/mnist_ddpmpp' for sde in ('subvp', 've', 'vp')],
    'vp/mnist_classes_ddpmpp',
    'vp/mnist_energy',
    'vp/mnist_fd_sliced_vr',
    'vp/patches_ddpmpp',
]


def module(name):
    return importlib.import_module('configs.' + name.replace('/', '.'))


def load(name):
    return module(name).get_config()


def test_the_experiments_are_the_39_published_ones_and_the_new_ones():
    assert len(PUBLISHED) == 39
    assert {*CLASSIFIERS, *LATENT} < set(ALL)
    assert set(EXPERIMENTS) == set(PUBLISHED) | set(NEW)


@pytest.mark.parametrize('name', ALL)
def test_an_experiment_says_how_it_is_run(name):
    assert f'--config=configs/{name}.py' in module(name).__doc__


def test_no_two_experiments_name_the_same_workdir():
    docs = [module(name).__doc__ for name in ALL]
    workdirs = [doc.split('--workdir=')[1].split()[0] for doc in docs]
    assert len(set(workdirs)) == len(workdirs)


def test_the_docs_say_how_to_get_the_data_of_every_experiment():
    """Packages have digits, and some of MNIST; patches are cut by a command of a config, vectors
    are drawn, and equations need none.
    """
    published = (ROOT / 'docs' / 'data.md').read_text().partition('## Sources')[0]
    patterns = re.findall(r'`(configs/\S+\.py)`', published)
    told = {path for pattern in patterns for path in ROOT.glob(pattern)}
    untold = {name for name in ALL if ROOT / 'configs' / f'{name}.py' not in told}
    without = 'mnist', 'digits', 'patches', 'small'
    of_images = {name for name in ALL if any(part in name for part in without)}
    assert untold == of_images | {*SIMULATED, *EQUATIONS}


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_every_experiment_builds_all_that_it_names(name):
    config, experiment = load(name), create(name)
    model = experiment.model
    params, score = traced(name)
    assert score.shape == (1, *model.image_shape)
    state = jax.eval_shape(reading.create_update(config).init, params)
    assert jax.tree.structure(state.evaluated) == jax.tree.structure(params)
    assert experiment.drawing().name == config.sampling.method
    score_measures.create_estimator(config, model)
    # Which takes no corrector: some of them name one.
    for method in set(sampling.METHODS) - {'picard'}:
        image_drawing.create_sampler(config, model.sde, method)
    run_lib.check_periods(config.training)


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_every_classifier_builds_all_that_it_names(name):
    config = load(name)
    experiment = kinds.create(config)
    key, batch = jax.random.key(0), experiment.batch_shapes(1)
    params = jax.eval_shape(experiment.init, key).evaluated
    value = jax.eval_shape(lambda p, b: experiment.loss(p, key, b, True), params, batch)
    assert value.shape == (1,)
    times = jnp.array([0.0, *config.eval.noise_levels])
    found = jax.eval_shape(lambda p, b: experiment.class_scores(times, p, key, b), params, batch)
    assert found.cross_entropy.shape == found.correct.shape == (len(times), 1)
    assert experiment.drawing() is None
    run_lib.check_periods(config.training)


@pytest.mark.parametrize('name', LATENT_SMALL)
def test_every_latent_score_model_builds_all_that_it_names(name):
    config = load(name)
    validation.check(config)
    experiment = kinds.create(config, sharding.create_mesh())
    key, batch = jax.random.key(0), experiment.batch_shapes(2)
    state = jax.eval_shape(experiment.init, key)
    after, metrics = jax.eval_shape(experiment.step, state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics.loss.shape == ()
    drawing = experiment.drawing()
    drawn = jax.eval_shape(drawing.draw, state.evaluated, key, jnp.arange(2))
    assert drawn['pixels'].shape == batch['image'].shape
    [evidence] = experiment.programs()
    found = evidence.run.trace(state.evaluated, key, evidence.batch).out_info
    assert found['log_prob'].shape == (config.eval.batch_size,)
    run_lib.check_periods(config.training)


# Height and channels of codes, and groups of latents of every size, coarsest first.
GROUPS = {
    'lsgm/mnist': (8, 2 * 20, [2]),
    'lsgm/omniglot': (16, 3 * 20, [3]),
    'lsgm/cifar10': (16, 20 * 9, [20]),
    'lsgm/cifar10_nll': (16, 4 * 45, [4]),
    'lsgm/celebahq_256': (32, 8 * 20, [8, 8, 8]),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', LATENT_PUBLISHED)
def test_every_published_latent_score_model_builds_all_that_it_names(name):
    """Both stages; the second begins with what the first one leaves."""
    config, first = load(name), load(f'{name}_autoencoder')
    for stage in (config, first):
        validation.check(stage)
        run_lib.check_periods(stage.training)
    for section in ('data', 'sde', 'autoencoder', 'model'):
        assert first[section].to_dict() == config[section].to_dict()
    assert [first.training.stage, config.training.stage] == ['autoencoder', 'joint']
    experiment = kinds.create(config)
    side, channels, groups = GROUPS[name]
    assert experiment.model.codes.image_shape == (side, side, channels)
    assert list(experiment.model.autoencoder.num_groups) == groups
    # Which goes through both networks once.
    params = jax.eval_shape(experiment.model.init_params, jax.random.key(0))
    assert params['prior'][MIXING_LOGIT].shape == (channels,)


def test_there_is_a_config_for_every_published_equation():
    names = set(equations.PROBLEMS) - {'exp_linear'}
    assert {name.removeprefix('deqgan/') for name in EQUATIONS} == names
    assert len(names) == 12


@pytest.mark.parametrize('name', EQUATIONS)
def test_every_equation_builds_all_that_it_names(name):
    config = load(name)
    validation.check(config)
    experiment = kinds.create(config)
    batch = experiment.batch_shapes(config.training.batch_size)
    assert len(experiment.data('train')) == config.training.batch_size
    state = jax.eval_shape(experiment.init, jax.random.key(0))
    after, progress = jax.eval_shape(experiment.step, state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert progress.loss.shape == ()
    assert name.removeprefix('deqgan/') == config.equation.name
    run_lib.check_periods(config.training)


SET_BY_SDE = {'sigma_min', 'sigma_max', 'num_scales'}


def network_fields(model):
    network = choose(models.MODELS, model, 'model.name')
    return {field.name for field in dataclasses.fields(network)}


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
    return kinds.create(load(name))


@functools.cache
def trace(network, parameterization, image_shape, name):
    """Shapes of the parameters and of the score of one image."""
    initialising = Initialising(network)
    model = dataclasses.replace(create(name).model, network=initialising)
    classes = jnp.zeros(1, jnp.int32) if model.num_classes else None

    def init_and_score(key):
        process = model.process(key, classes)
        score = process.score(jnp.zeros((1, *image_shape)), jnp.ones(1))
        return initialising.params, score

    return jax.eval_shape(init_and_score, jax.random.key(0))


SHARED = {}


def traced(name):
    """Shapes of the parameters and of the score of an experiment."""
    model = create(name).model
    alike = model.network, load(name).model.parameterization, model.image_shape
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
    """One of our configs by published keys and values."""
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


def point_process(sde):
    """The exact score of data that are all 0.3."""

    def score(x, t):
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        return -(x - 0.3 * alpha) / sigma**2

    return Process(sde, score)


def draw(config, method, **fields):
    """Three samples of data that are all 0.3, of two values each."""
    sde = create_sde(config)
    sampler = dataclasses.replace(image_drawing.create_sampler(config, sde, method), **fields)
    return sampler(keys.per_image(jax.random.key(0), 3), point_process(sde), (2,))


@pytest.mark.parametrize('name', [name for name in PUBLISHED if not name.endswith('continuous')])
def test_discrete_samplers_visit_every_level_once(name):
    config = load(name)
    sde = create_sde(config)
    times = draw(config, 'pc', trajectory=True).times
    levels = sde.level(times[:-1])
    np.testing.assert_array_equal(levels, np.arange(sde.num_scales)[::-1])
    assert times[-1] == 0.0


@pytest.mark.parametrize('name', ['vp/cifar10_ddpmpp', 've/cifar10_ncsnpp'])
def test_the_ode_of_a_chain_ends_before_the_data(name):
    """In log signal-to-noise ratio it cannot reach the data."""
    config = load(name)
    config.sampling.rtol = config.sampling.atol = 1e-2
    times = draw(config, 'ode', trajectory=True).times
    np.testing.assert_allclose(times[-1], create_sde(config).t_min, rtol=1e-6)
    assert times[-1] > 0


@pytest.mark.parametrize('name', ['vp/cifar10_ddpmpp', 've/cifar10_ncsnpp'])
def test_discrete_samplers_end_at_the_data(name):
    """With the exact score of data that are all 0.3, the last step finds 0.3."""
    np.testing.assert_allclose(draw(load(name), 'pc').x, 0.3, atol=1e-5)


@pytest.mark.parametrize(
    ('name', 'images', 'half_life'),
    [
        *[(name, 200e6, 0.5e6) for name in EDM_CIFAR10 + EDM_FACES],
        ('edm/imagenet64_adm', 2500e6, 50e6),
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
    [
        *[(name, 35) for name in EDM_CIFAR10],
        *[(name, 79) for name in EDM_FACES],
        ('edm/imagenet64_ddpmpp', 79),
    ],
)
def test_edm_samples_with_as_many_evaluations_as_published(name, evaluations):
    config = load(name)
    drawn = draw(config, config.sampling.method)
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
    # Dhariwal & Nichol 2021, table 4.
    'edm/imagenet64_adm': (296, 0),
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
        counted = parameter_counts.adm if config.model.name == 'adm' else parameter_counts.unet
        expected = counted(config.model, size, channels)
    assert count(name) == expected

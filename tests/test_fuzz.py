"""Corrupted configs: each is refused with an InputError, or all that it names can be traced.

What is traced has shapes and types that XLA compiles; nothing is compiled here.
"""

import contextlib
import copy
import functools
import random
import signal

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

import losses
import models
import parameterization
import run_lib
import sde_lib
import time_sampling
import training
from choices import InputError
from devices import sharding
from evaluation import bits_per_dim
from experiments import experiment, samplers, validation
from solvers import correctors, grids, ode, predictors, reverse_sde
from storage import workdirs
from tests.experiments import test_configs

CONFIGS = (
    *('vp/cifar10_ddpmpp', 'vp/cifar10_ncsnpp_continuous', 'vp/ddpm/cifar10'),
    *('subvp/cifar10_ddpmpp_continuous', 've/cifar10_ncsnpp_continuous', 've/cifar10_ddpm'),
    *('ve/ncsnv2/cifar10', 've/ncsn/cifar10', 'edm/cifar10_ddpmpp', 've/mnist_classifier'),
    *('vp/mnist_ddpmpp', 'vp/mnist_classes_ddpmpp'),
)
SEEDS = range(200)
GROUPS = 10  # of seeds, one a test
SECONDS = 60  # after which a case is one that hangs: a hundred times what the slowest takes

NAMES = [
    name
    for names in (
        *(sde_lib.SDES, models.MODELS, parameterization.PARAMETERIZATIONS, losses.WEIGHTINGS),
        *(
            time_sampling.TIME_SAMPLERS,
            samplers.METHODS,
            predictors.PREDICTORS,
            correctors.CORRECTORS,
        ),
        *(grids.TIME_GRIDS, ode.SOLVERS, reverse_sde.SOLVERS),
    )
    for name in names
]
# Sections of which more is traced are corrupted more often.
WEIGHTS = {'sde': 3, 'model': 3, 'sampling': 2}
STRANGE = ('', 'x', 0, 1, -1, 3, 2.5, -0.1, 1e30, 1e-30, 10**9, 2**70, float('nan'), float('inf'))
STRANGE += (None, True, False, (), (0,), (-1, 2), (1.5,), ('x',), [1, [2]], {'a': 1}, (2,) * 99)


@functools.cache
def original(name):
    """An experiment with small images and a network of two levels, as published for the rest."""
    config = test_configs.load(name)
    config.data.source = 'digits'
    config.data.image_size = (8, 8)
    # GroupNorm of the U-Net of DDPM has 32 groups.
    nf = 32 if config.model.name == 'ddpm' else 8
    small = {'nf': nf, 'ch_mult': (1, 1), 'num_res_blocks': 1, 'attn_resolutions': (4,)}
    for field in set(small) & set(config.model):
        config.model[field] = small[field]
    config.training.batch_size = config.eval.batch_size = 4
    if 'sampling' in config:
        config.sampling.batch_size = config.sampling.num_samples = 4
    return config.to_dict()


def corrupted(seed):
    """A config of which one to three fields are wrong, strange, or what another field has."""
    draw = random.Random(seed)
    tree = copy.deepcopy(original(CONFIGS[seed % len(CONFIGS)]))
    for _ in range(draw.choice((1, 1, 2, 3))):
        fields = sorted(workdirs.flatten(tree))
        field = draw.choices(fields, [WEIGHTS.get(f.split('.')[0], 1) for f in fields])[0]
        *path, name = field.split('.')
        section = functools.reduce(lambda tree, part: tree[part], path, tree)
        corrupt(draw, section, name, workdirs.flatten(tree))
    return tree


def corrupt(draw, section, name, flat):
    """Changes one field of a section."""
    value = section[name]
    kind = draw.choices(('plausible', 'strange', 'swap', 'key'), (8, 2, 1, 1))[0]
    if kind == 'plausible':
        section[name] = plausible(draw, value)
    elif kind == 'strange':
        section[name] = draw.choice(STRANGE)
    elif kind == 'swap':
        section[name] = draw.choice([v for v in flat.values() if type(v) is type(value)])
    else:
        section.pop(name)
        if draw.random() < 0.5:
            section[f'{name}s'] = value


def plausible(draw, value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice((-value, 0, 1, value + 1, 2 * value, 1000 * value, value // 3))
    if isinstance(value, float):
        return draw.choice((-value, 0.0, 1000 * value, value / 3, value + 1, 1e-12, 1e12))
    if isinstance(value, tuple):
        return draw.choice((value[1:], value * 2, tuple(0 * v for v in value), value[::-1], (7, 3)))
    if isinstance(value, str):
        return draw.choice(NAMES)
    return draw.choice((*NAMES, 0, 1, 1e-3, 0.5, 2.0, 40.0))


def trace(config, changed):
    """What training, sampling and evaluation build, and trace before they compile.

    Of the latter what the changed fields are for: solvers see a score, whatever the network.
    """
    validation.check(config)
    mesh = sharding.create_mesh(**config.mesh)
    run_lib.check_periods(config.training)
    made = experiment.create_experiment(config)
    run_lib.check_enough(run_lib.load_images(config, 'train'), config.training.batch_size)
    run_lib.check_batch_sizes(mesh, config, 'training.batch_size', 'eval.batch_size')
    state = run_lib.abstract_state(config, made, mesh)
    if touches(changed, 'data', 'sde', 'model', *OF_STEPS):
        trace_step(config, made, state)
    if isinstance(made, experiment.Classifier):
        scores = experiment.create_class_scores(config, made)
        jax.eval_shape(scores, state.params, KEY, batch(made))
        return
    run_lib.check_batch_sizes(mesh, config, 'sampling.batch_size')
    for method in config.eval.samplers:
        samplers.create_sampler(config, made, method)
    sample = samplers.create_sampler(config, made, config.sampling.method)
    if touches(changed, 'sde', 'sampling', 'model.num_classes'):
        jax.eval_shape(sample, state.params, KEY, INDEX)
    of_batch = bits_per_dim.create(config, made)
    if touches(changed, *(f'eval.{field}' for field in bits_per_dim.FIELDS)):
        jax.eval_shape(of_batch, state.params, KEY, batch(made), INDEX)


OF_STEPS = (
    *('seed', 'training.weighting', 'training.time_sampler', 'training.t_min'),
    *('training.reduce_mean', 'training.log_sigma', 'training.label_dropout'),
)


def touches(changed, *names):
    """Whether any of the changed fields has one of these names, or is in a section of this name."""
    return any(field == name or field.startswith(f'{name}.') for field in changed for name in names)


KEY = jax.eval_shape(lambda: jax.random.key(0))
INDEX = jax.ShapeDtypeStruct((2,), jnp.int32)


def batch(made):
    image = jax.ShapeDtypeStruct((2, *made.image_shape), jnp.uint8)
    return {'image': image, 'label': INDEX}


def trace_step(config, made, state):
    loss, optimizer = (
        experiment.create_loss(config, made),
        experiment.create_optimizer(config),
    )
    gradient = training.make_gradient(lambda *given: loss(*given, True).mean(), config.seed)
    fields = config.optim
    step = training.make_step(gradient, optimizer, fields.ema_rate, fields.ema_warmup)
    after, _ = jax.eval_shape(step, state, batch(made))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
        lambda a: (a.shape, a.dtype), state
    )


@contextlib.contextmanager
def limited():
    """Raises TimeoutError in the main thread if what is done takes too long."""

    def stop(*_):
        raise TimeoutError(f'{SECONDS} seconds')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(seed):
    """What became of a case: None, or the line by which it is refused."""
    tree = corrupted(seed)
    before, now = (workdirs.flatten(t) for t in (original(CONFIGS[seed % len(CONFIGS)]), tree))
    # Other floats, but for those of an SDE, do not change what is traced.
    fixed = {f for f, value in now.items() if isinstance(value, float) and not f.startswith('sde.')}
    changed = {f for f in {*before, *now} - fixed if before.get(f) != now.get(f)}
    try:
        with limited():
            trace(ConfigDict(tree), changed)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.slow
@pytest.mark.parametrize('group', range(GROUPS))
def test_a_corrupted_config_is_refused_or_can_be_traced(group):
    for seed in SEEDS[group::GROUPS]:
        try:
            refusal = outcome(seed)
        except Exception as error:
            error.add_note(f'seed {seed}: {CONFIGS[seed % len(CONFIGS)]}')
            raise
        assert refusal is None or len(refusal.splitlines()) == 1, refusal

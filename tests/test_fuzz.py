"""Corrupted configs: each is refused by the name of a field, or all that it names can be traced.

What is traced has shapes and types that XLA compiles; nothing is compiled here.
"""

import contextlib
import copy
import functools
import pathlib
import random
import re
import signal

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

import losses
import models
import parameterization
import run_lib
import sampling
import sde_lib
import time_sampling
from choices import InputError
from configs import base, fields
from devices import sharding
from experiments import kinds, programs, validation
from experiments.classification import Classification
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
        *(time_sampling.TIME_SAMPLERS, sampling.METHODS, predictors.PREDICTORS),
        *(correctors.CORRECTORS, grids.TIME_GRIDS, ode.SOLVERS, reverse_sde.SOLVERS),
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
    run_lib.check_range(config.eval)
    experiment = kinds.create(config, mesh)
    run_lib.check_enough(experiment.data('train'), config.training.batch_size)
    for section in {'training', 'eval', 'sampling'} & set(config):
        sharding.check_divides(mesh, f'{section}.batch_size', config[section].batch_size)
    experiment.measures(pathlib.Path('nowhere'))
    state = programs.abstract_state(experiment, mesh)
    if touches(changed, 'data', 'sde', 'model', *OF_STEPS):
        after, _ = jax.eval_shape(experiment.step, state, experiment.batch_shapes(2))
        assert shapes(after) == shapes(state)
    if isinstance(experiment, Classification):
        times = jax.ShapeDtypeStruct((2,), jnp.float32)
        batch = experiment.batch_shapes(2)
        jax.eval_shape(experiment.class_scores, times, state.evaluated, KEY, batch)
    drawing = experiment.drawing()
    if drawing and touches(changed, 'sde', 'sampling', 'model.num_classes'):
        jax.eval_shape(drawing.draw, state.evaluated, KEY, INDEX, drawing.given)
    if touches(changed, *OF_LIKELIHOODS):
        for program in experiment.programs():
            jax.eval_shape(program.run, state.evaluated, KEY, program.batch)


OF_STEPS = (
    *('seed', 'training.weighting', 'training.time_sampler', 'training.t_min'),
    *('training.reduce_mean', 'training.log_sigma', 'training.label_dropout'),
)
OF_LIKELIHOODS = (
    *('eval.bpd', 'eval.t_min', 'eval.divergence', 'eval.num_probes', 'eval.num_dequantizations'),
    *('eval.importance_weighted', 'eval.variational_draws', 'eval.round_trip', 'eval.solver'),
    *('eval.rtol', 'eval.atol', 'eval.per_image_steps'),
)
KEY = jax.eval_shape(lambda: jax.random.key(0))
INDEX = jax.ShapeDtypeStruct((2,), jnp.int32)


def touches(changed, *names):
    """Whether any of the changed fields has one of these names, or is in a section of this name."""
    return any(field == name or field.startswith(f'{name}.') for field in changed for name in names)


def shapes(tree):
    return jax.tree.map(lambda a: (a.shape, a.dtype), tree)


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
        if refusal is not None:
            assert len(refusal.splitlines()) == 1, refusal
            assert names_a_field(refusal), refusal


def names_a_field(refusal):
    """Whether a line begins with the name of a field, of any experiment, or of one that is none."""
    named = re.match(r'[\w.]+', refusal)[0]
    return named in FIELDS or 'there is no such field' in refusal


FIELDS = set(fields.flat(base.noise_classifier()))
FIELDS |= {field for name in models.SCORE_NETWORKS for field in fields.flat(base.score_model(name))}

"""Every experiment in configs/ resolves, builds, and agrees with its neighbours."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

import experiment

ROOT = pathlib.Path(__file__).parent.parent
EXPERIMENTS = sorted(
    path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')
    for path in (ROOT / 'configs').glob('*/*.py')
    if path.stem != '__init__'
)


def load(name):
    return importlib.import_module(name).get_config()


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_every_experiment_builds_all_that_it_names(name):
    config = load(name)
    built = experiment.create_experiment(config)
    params = jax.eval_shape(built.init_params, jax.random.key(0))
    score = jax.eval_shape(
        lambda p, x, t: built.score_fn(p)(x, t),
        params,
        jnp.zeros((2, *built.image_shape)),
        jnp.ones(2),
    )
    assert score.shape == (2, *built.image_shape)
    experiment.create_loss(config, built)
    experiment.create_optimizer(config).init(params)
    experiment.create_bits_per_dim(config, built)
    for method in experiment.SAMPLERS:
        experiment.create_sampler(config, built, method)


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_an_experiment_says_how_it_is_run(name):
    path = name.replace('.', '/') + '.py'
    assert f'--config={path}' in importlib.import_module(name).__doc__


def test_the_mnist_runs_differ_in_the_sde_and_what_depends_on_it():
    vp, subvp = (load(f'configs.{sde}.mnist_ddpmpp').to_dict() for sde in ('vp', 'subvp'))
    vp['sde']['name'] = 'subvp'
    assert vp == subvp


def test_base_has_every_field_of_the_network():
    fields = set(importlib.import_module('configs.base').model())
    network = set(experiment.models.MODELS['ncsnpp'].__dataclass_fields__)
    # Set by the SDE and the data.
    derived = {'parent', 'name', 'centered', 'sigma_min', 'sigma_max', 'num_scales'}
    assert network - derived == fields - {'name', 'parameterization'}

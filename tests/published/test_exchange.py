"""Published checkpoints as training states, and back."""

import jax
import numpy as np
import optax
import pytest
from flax import serialization

import run_lib
from choices import InputError
from devices import sharding
from experiments import kinds, run_files
from published import exchange, formats
from tests import tiny_config


@pytest.fixture(scope='module')
def config():
    return tiny_config.get_config()


@pytest.fixture(scope='module')
def experiment(config):
    return kinds.create(config, sharding.create_mesh())


@pytest.fixture(scope='module')
def params(experiment):
    """Of every kind of array other numbers."""
    shapes = formats.outline(experiment.model.init_params).shapes
    return jax.tree.map(lambda p: np.full(p.shape, p.size, np.float32), shapes)


@pytest.fixture(scope='module')
def average(params):
    return jax.tree.map(lambda p: 2 * p, params)


@pytest.fixture
def path(params, average, tmp_path):
    """A checkpoint of the published flax code, after 20 steps of which one changed nothing."""
    moments = jax.tree.map(lambda p: {'grad_ema': 3 * p, 'grad_sq_ema': 4 * p}, params)
    optimizer = {'target': params, 'state': {'step': 19, 'param_states': moments}}
    state = {'step': 20, 'optimizer': optimizer, 'params_ema': average}
    (tmp_path / 'a').write_bytes(serialization.msgpack_serialize(state))
    return tmp_path / 'a'


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def moments(opt_state):
    """What Adam's state has: counts, and averages of gradients and of their squares."""
    names = 'count', 'mu', 'nu'
    return [[v for _, v in optax.tree.get_all_with_path(opt_state, name)] for name in names]


def test_training_goes_on_with_the_moments_of_adam(config, experiment, params, path, tmp_path):
    run_lib.import_checkpoint(config, tmp_path / 'run', path)
    mesh = sharding.create_mesh()
    restored = run_files.restore(config, tmp_path / 'run', experiment, mesh)
    counts, (mean,), (square,) = moments(restored.opt_state)
    assert_equal(mean, jax.tree.map(lambda p: 3 * p, params))
    assert_equal(square, jax.tree.map(lambda p: 4 * p, params))
    assert [int(count) for count in counts] == [19, 19]  # Of Adam, and of its learning rate.
    assert restored.step == 20


def test_parameters_and_their_average_are_told_apart(experiment, params, average, path):
    state, words = exchange.read(path, experiment.init)
    assert_equal(state.params, params)
    assert_equal(state.averages, {'ema': average})
    assert state.skipped == 0
    assert words == "parameters, their moving average and Adam's moments"


def test_a_state_has_the_shapes_and_types_of_one_before_the_first_step(experiment, path):
    state, _ = exchange.read(path, experiment.init)
    expected = jax.eval_shape(experiment.init, jax.random.key(0))
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)),
        state,
        expected,
    )


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])
def test_what_is_written_is_read_again_with_a_fresh_optimiser(
    suffix, experiment, params, average, tmp_path
):
    path = tmp_path / f'a{suffix}'
    exchange.check_writable(path)
    exchange.write(path, 7, params, average)
    state, words = exchange.read(path, experiment.init)
    assert_equal((state.step, state.params, state.evaluated), (7, params, average))
    counts, (mean,), (square,) = moments(state.opt_state)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((counts, mean, square)))
    assert words == 'parameters, their moving average and a fresh optimiser'


def test_a_checkpoint_of_another_network_is_refused_by_the_name_of_its_file(config, path):
    wider = config.copy_and_resolve_references()
    wider.model.nf = 16
    with pytest.raises(InputError, match=f'params of {path} does not fit the config: '):
        exchange.read(path, kinds.create(wider).init)

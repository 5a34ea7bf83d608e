"""Published checkpoints as training states, and back."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from flax import serialization

import run_lib
from choices import InputError
from configs import base
from devices import sharding
from experiments import kinds, run_files
from published import edm_networks, edm_pickle, exchange, formats
from storage import workdirs
from tests import tiny_config
from tests.support import golden, networks


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


def test_gradient_descent_has_no_use_for_moments(config, params, path):
    plain = config.copy_and_resolve_references()
    plain.optim.name = 'sgd'
    state, words = exchange.read(path, kinds.create(plain).init)
    assert_equal(state.params, params)
    assert words == 'parameters, their moving average and a fresh optimiser'


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


# Networks of EDM


def edm_config(name):
    """The published experiment, but for the sizes of the recorded network."""
    module = importlib.import_module(f'configs.edm.{name}')
    config = module.get_config()
    config.data.source = 'digits'
    config.data.image_size = (16, 16)
    config.model.nf = 16
    config.model.ch_mult = (1, 2)
    config.model.num_res_blocks = 1
    config.model.attn_resolutions = (8,)
    return config


def edm_values(config):
    return workdirs.flatten(config.to_dict())


RECORDED = [('ddpmpp', 'cifar10_cond_ddpmpp'), ('ncsnpp', 'cifar10_ncsnpp')]


@pytest.mark.parametrize(('recorded', 'name'), RECORDED)
def test_networks_of_edm_denoise_as_recorded(recorded, name):
    config = edm_config(name)
    experiment, data = kinds.create(config), golden.load(f'published_edm_{recorded}')
    path = golden.DATA / f'published_edm_{recorded}.pkl'
    state, words = exchange.read(path, experiment.init, edm_values(config))
    assert words == 'parameters and a fresh optimiser'
    assert state.step == 0
    assert_equal(state.params, state.evaluated)
    classes = jnp.asarray(data['labels'], jnp.int32) if data['labels'].size else None

    @networks.quick_jit
    def denoise(params, x, t):
        return experiment.model.process(params, classes).denoise(x, t)

    # Of EDM's SDE, t is sigma.
    denoised = denoise(state.evaluated, data['x'], data['sigma'])
    np.testing.assert_allclose(denoised, data['denoised'], rtol=golden.RTOL, atol=golden.ATOL)


def test_fields_that_a_network_of_edm_needs_are_named():
    config = edm_config('cifar10_ddpmpp')
    path = golden.DATA / 'published_edm_ddpmpp.pkl'
    with pytest.raises(InputError) as error:
        exchange.read(path, kinds.create(config).init, edm_values(config))
    assert str(error.value) == (
        f'{path} does not fit the config: model.num_classes is 0, and 10 is needed'
    )


@pytest.mark.parametrize(('recorded', 'name'), RECORDED)
def test_what_edm_gets_is_what_it_had(recorded, name, tmp_path):
    """All that its `load_state_dict` looks for, but for the layer of the augmentation."""
    config, path = edm_config(name), tmp_path / 'a.edm.safetensors'
    original = edm_pickle.load(golden.DATA / f'published_edm_{recorded}.pkl')
    experiment, values = kinds.create(config), edm_values(config)
    state, _ = exchange.read(golden.DATA / f'published_edm_{recorded}.pkl', experiment.init, values)
    exchange.check_writable(path, values)
    exchange.write(path, 7, state.params, state.evaluated, values)
    found = safetensors.numpy.load_file(path)
    assert found.keys() == original.state.keys() - {'model.map_augment.weight'}
    for key, value in found.items():
        np.testing.assert_array_equal(value, original.state[key], err_msg=key)
    again, words = exchange.read(path, experiment.init, values)
    assert (again.step, words) == (7, 'parameters and a fresh optimiser')
    assert_equal(again.evaluated, state.evaluated)


def test_edm_gets_no_network_that_it_does_not_have(experiment, tmp_path):
    values = edm_values(tiny_config.get_config())
    with pytest.raises(
        InputError, match=r'--checkpoint: \.edm\.safetensors is for networks of EDM'
    ):
        exchange.check_writable(tmp_path / 'a.edm.safetensors', values)


@pytest.mark.parametrize('kind', ['VPPrecond', 'VEPrecond'])
def test_the_other_preconditionings_denoise_as_edm_says(kind):
    """Karras et al. 2022, table 1: D = x + c_out F(c_in x, c_noise)."""
    arguments = {
        **{'img_resolution': 8, 'img_channels': 3, 'label_dim': 10},
        **{'model_channels': 8, 'channel_mult': [1], 'num_blocks': 1, 'attn_resolutions': []},
    }
    config = base.get_config()
    for name, value in edm_networks.fields(kind, arguments).items():
        section, field = name.split('.')
        config[section][field] = value
    model = kinds.create(config).model
    params = networks.randomised(jax.eval_shape(model.init_params, jax.random.key(0)))
    x, classes = jax.random.normal(jax.random.key(1), (3, 8, 8, 3)), jnp.array([0, 3, 9])
    sigma = jnp.array([0.05, 0.7, 9.0])
    s = sigma[:, None, None, None]

    unscaled = model.network.clone(scale_by_sigma=False, centered=True)
    apply = networks.quick_jit(unscaled.apply)

    def network(inputs, labels):
        return apply({'params': params}, inputs, labels, classes)

    denoise = networks.quick_jit(lambda x, t: model.process(params, classes).denoise(x, t))
    if kind == 'VPPrecond':
        t = (jnp.sqrt(0.1**2 + 2 * 19.9 * jnp.log1p(sigma**2)) - 0.1) / 19.9
        expected = x - s * network(x / jnp.sqrt(1 + s**2), 999 * t)
        found = denoise(x / jnp.sqrt(1 + s**2), t)
    else:
        # Images in [0, 1] have half of the noise.
        expected = x + s * network(x, sigma / 2)
        t = model.sde.time_at_log_snr(-2 * jnp.log(sigma / 2))
        found = 2 * denoise((x + 1) / 2, t) - 1
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())

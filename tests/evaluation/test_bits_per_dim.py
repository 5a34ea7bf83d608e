"""Bits/dim of images of a config: what they depend on, what is reported, and what is refused."""

import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import likelihood
import run_lib
from choices import InputError
from datasets import quantization
from devices import sharding
from evaluation import bits_per_dim, run
from experiments import experiment
from tests import tiny_config

EVERYTHING = {
    'num_bpd_images': 11,
    'batch_size': 8,
    'num_dequantizations': 2,
    'num_probes': 2,
    'importance_weighted': True,
    'variational_draws': 2,
    'round_trip': True,
}


def make(**fields):
    """A config, and a network for it whose output is not zero."""
    config = tiny_config.get_config()
    config.model.nf = 4
    config.eval.update(fields)
    model = experiment.create_experiment(config)
    params = jax.jit(model.init_params)(jax.random.key(0))
    noisy = jax.tree.map(lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size).reshape(a.shape)), params)
    return config, model, noisy


@functools.cache
def measured():
    """The arrays and the numbers of an evaluation of 11 images in batches of 8."""
    config, model, params = make(**EVERYTHING)
    run = jax.jit(bits_per_dim.create(config, model))
    data = run_lib.load_images(config, 'test')
    key = jax.random.key(config.seed)
    batches = [
        run(params, key, data.gather(np.arange(i, i + 8)), jnp.arange(i, i + 8)) for i in (0, 3)
    ]
    evaluation = run.Evaluation(config, model, sharding.create_mesh(), data)
    return batches, run.bits_per_dim_measure(evaluation), params


def test_every_image_counts_when_the_batch_size_does_not_divide(tmp_path):
    """Images 8 to 10 are those of a batch from 3 on: what is drawn for an image is its own."""
    (first, other), measure, params = measured()
    found, _ = measure(run.Checkpoint(params, tmp_path, 0))
    arrays = np.load(tmp_path / 'bits_per_dim.npz')
    assert found['bits_per_dim_images'] == 11
    for name in first._fields:
        parts = getattr(first, name), getattr(other, name)[5:]
        np.testing.assert_allclose(arrays[name], np.concatenate(parts), rtol=1e-4, atol=1e-4)
    assert np.ptp(arrays['by_draw'], axis=(1, 2)).min() > 0
    np.testing.assert_allclose(found['bits_per_dim'], arrays['by_draw'].mean(), rtol=1e-6)
    parts = [found[f'bits_per_dim_error_of_{of}'] for of in ('data', 'dequantization', 'probes')]
    assert np.square(parts).sum() >= found['bits_per_dim_standard_error'] ** 2 * (1 - 1e-6)
    assert found['round_trip_grey_levels'] <= found['round_trip_grey_levels_worst_image']
    for bound in ('importance_weighted', 'variational'):
        assert found[f'bits_per_dim_{bound}_standard_error'] > 0
    json.dumps({name: float(value) for name, value in found.items()}, allow_nan=False)


class Noting:
    """Fields of a config that remember which were read."""

    def __init__(self, fields):
        self._fields, self.read = fields, set()

    def __getitem__(self, name):
        self.read.add(name)
        return self._fields[name]

    __getattr__ = __getitem__


def test_all_fields_that_the_numbers_depend_on_are_told():
    """What is missing in FIELDS would let an evaluation go on with numbers of other fields."""
    config, model, _ = make()
    noting = Noting(config.eval)
    bits_per_dim.create(types.SimpleNamespace(eval=noting), model)
    # The number of images: which are measured, not what is measured of each.
    assert noting.read - {'num_bpd_images'} == set(bits_per_dim.FIELDS)


def test_the_bits_are_those_of_the_dequantised_image():
    """One draw of one image, from the functions that it is made of."""
    config, model, params = make(num_probes=2, variational_draws=0, rtol=1e-5, atol=1e-5)
    data = run_lib.load_images(config, 'test').gather(np.arange(1))
    key = jax.random.key(3)
    found = jax.jit(bits_per_dim.create(config, model))(params, key, data, jnp.array([5]))
    keys_noise, keys_rest = keys.split(keys.fold_in(keys.of_images(key, jnp.array([5])), 0), 2)
    x = quantization.dequantize_each(keys_noise, data['image'], True)
    np.testing.assert_array_equal(quantization.to_uint8(x, True), data['image'])
    log_prob = likelihood.log_prob(
        keys.split(keys_rest, 2)[0],
        model.score_fn(params),
        x,
        sde=model.sde,
        t_min=model.sde.t_min,
        num_probes=2,
        rtol=1e-5,
        atol=1e-5,
    )
    expected = 7 - np.asarray(log_prob.by_probe) / 64 / np.log(2)
    np.testing.assert_allclose(found.by_draw[:, 0], expected, rtol=1e-4)
    assert found.variational is found.importance_weighted is found.round_trip_error is None


def test_networks_of_classes_are_given_those_of_the_images():
    config, model, _ = make(**EVERYTHING)
    config.model.num_classes = 10
    model = experiment.create_experiment(config)
    params = jax.eval_shape(model.init_params, jax.random.key(0))
    batch = {'image': jnp.zeros((4, 8, 8, 1), jnp.uint8), 'label': jnp.zeros(4, jnp.int32)}
    run = bits_per_dim.create(config, model)
    found = jax.eval_shape(run, params, jax.random.key(0), batch, jnp.arange(4))
    assert found.by_draw.shape == (4, 2, 2)
    assert found.variational.shape == found.importance_weighted.shape == found.nfe.shape == (4,)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'solver': 'rk45'}, "eval.solver: unknown name 'rk45'"),
        ({'importance_weighted': True}, 'num_dequantizations is 1'),
        ({'importance_weighted': True, 'num_dequantizations': 2}, 'num_probes is 2 or more'),
    ],
)
def test_bad_values_are_refused(fields, message):
    config, model, _ = make()
    config.eval.update(fields)
    with pytest.raises(InputError, match=message):
        bits_per_dim.create(config, model)


def test_one_step_size_for_a_batch_is_refused_to_networks_of_classes():
    config = tiny_config.get_config()
    config.model.num_classes, config.eval.per_image_steps = 10, False
    with pytest.raises(InputError, match='eval.per_image_steps: False'):
        bits_per_dim.create(config, experiment.create_experiment(config))

"""What every method of sampling promises, made from a config as `main.py` makes it."""

import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sampling
import sde_lib
from choices import InputError
from configs import base
from devices import sharding
from experiments import image_drawing
from parameterization import Process
from tests.support import mixture

ROOT = pathlib.Path(__file__).parents[2]


def model_of(sde, wrap=lambda x: x, num_classes=0):
    """A stand-in for a score model, whose score is that of the mixture, and whose pixels are floats
    as they are."""
    exact = mixture.example().process(sde)
    return types.SimpleNamespace(
        sde=sde,
        num_classes=num_classes,
        image_shape=(2,),
        format=types.SimpleNamespace(to_uint8=lambda x: x),
        process=lambda params: exact.with_score(lambda x, t: exact.score(wrap(x), t)),
    )


def create(method, sde=None, wrap=lambda x: x, **fields):
    """A compiled sampler: `draw(key, indices)`."""
    config = base.get_config()
    config.sampling.update({'steps': 8, 't_min': 1e-2, 'rtol': 1e-3, 'atol': 1e-3, **fields})
    model = model_of(sde or sde_lib.VP(), wrap)
    sampler = image_drawing.create_sampler(config, model.sde, method)
    return jax.jit(
        lambda key, indices: image_drawing.draw_images(model, sampler, None, key, indices)
    )


KEY = jax.random.key(0)


@pytest.mark.parametrize('method', sampling.METHODS)
def test_an_image_is_the_same_alone_and_in_a_batch(method):
    """In float64: another batch is another program, of whose rounding adaptive solvers make more.

    Their step sizes follow error estimates that may be rounding errors.
    """
    with jax.enable_x64(True):
        draw = create(method)
        together = draw(KEY, jnp.arange(8))
        alone = draw(KEY, jnp.array([5]))
    np.testing.assert_allclose(alone['pixels'][0], together['pixels'][5], atol=1e-7)
    np.testing.assert_array_equal(alone['nfe'][0], together['nfe'][5])


@pytest.mark.parametrize('method', sampling.METHODS)
def test_nfe_is_the_number_of_network_calls(method):
    """Counted by a callback in the score, for one image: a batch runs until its slowest is done."""
    rows = []

    def count(x):
        rows.append(x.size // 2)
        return x

    def wrap(x):
        return jax.pure_callback(count, x, x, vmap_method='legacy_vectorized')

    drawn = jax.block_until_ready(create(method, wrap=wrap)(KEY, jnp.array([3])))
    assert int(drawn['nfe'][0]) == sum(rows)


@pytest.mark.parametrize('method', sampling.METHODS)
def test_a_method_compiles_once_for_a_shape(method):
    draw, compiled = create(method), []

    def listen(event, duration, **_):
        if event == '/jax/core/compile/backend_compile_duration':
            compiled.append(duration)

    first, indices = jax.random.key(1), jnp.arange(4)
    jax.block_until_ready(draw(first, indices))
    jax.monitoring.register_event_duration_secs_listener(listen)
    for seed in range(2, 5):
        jax.block_until_ready(draw(jax.random.key(seed), indices + seed))
    jax.monitoring.unregister_event_duration_listener(listen)
    assert draw._cache_size() == 1
    assert len(compiled) <= 2  # Those of the loop above: its keys and its sum.


@pytest.mark.parametrize('method', ['pc', 'picard'])
@pytest.mark.parametrize('name', ['vp', 'subvp', 'edm', 'flow'])
def test_a_grid_that_does_not_reach_the_data_is_refused(name, method):
    """Their images were black; grids that do reach them have others."""
    config = base.get_config()
    config.sampling.update({'steps': 4, 't_min': 0.0, 'grid': 'log_snr'})
    sde = sde_lib.create(name)
    with pytest.raises(InputError, match="^sampling.grid: 'log_snr', and sampling.t_min is 0.0"):
        image_drawing.create_sampler(config, sde, method)
    for grid in ('uniform', 'karras'):
        drawn = create(method, sde, t_min=0.0, grid=grid, steps=4)(KEY, jnp.arange(2))
        assert drawn['is_finite'].all()


def differences_between_devices():
    """The largest difference that eight devices make, for every method."""
    mesh = sharding.create_mesh()
    indices = np.arange(16)
    found = {}
    for method in sampling.METHODS:
        draw = create(method)
        one = draw(KEY, jax.device_put(indices, jax.devices()[0]))
        on_all = jax.jit(draw, out_shardings=sharding.by_batch(mesh))
        many = on_all(KEY, jax.device_put(indices, sharding.by_batch(mesh)))
        found[method] = float(np.abs(np.asarray(one['pixels']) - np.asarray(many['pixels'])).max())
    return found


@pytest.mark.slow
def test_eight_devices_draw_what_one_draws():
    """In a process of its own, which has eight; in float64, for the reason above."""
    code = 'import json; from tests.experiments import test_image_drawing as t; '
    code += 'print(json.dumps(t.differences_between_devices()))'
    environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '8', 'JAX_ENABLE_X64': '1'}
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    assert set(found) == set(sampling.METHODS)
    for method, difference in found.items():
        # Brownian paths are evaluated at float32 times, whatever the precision.
        assert difference < 1e-6, method


def test_a_grid_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match='sampling.grid'):
        create('pc', grid='straight')


def test_mean_norms_are_not_for_classes():
    config = base.get_config()
    config.sampling.batch_mean_norm = True
    with pytest.raises(InputError, match='sampling.batch_mean_norm'):
        image_drawing.create_drawing(config, model_of(sde_lib.VP(), num_classes=3), 'pc')


def test_the_class_of_an_image_follows_its_index():
    """Image i is of class i modulo the number of classes, in any batch."""
    model = model_of(sde_lib.VP(), num_classes=3)

    def process(params, label):
        return Process(model.sde, lambda x, t: (label - x) / model.sde.sigma(t)[:, None])

    model.process = process
    config = base.get_config()
    config.sampling.update({'steps': 100, 'eta': 0.0})
    sampler = image_drawing.create_sampler(config, model.sde, 'pc')
    whole, end = (
        image_drawing.draw_images(model, sampler, None, KEY, indices)['pixels']
        for indices in (jnp.arange(6), jnp.arange(3, 6))
    )
    np.testing.assert_allclose(end, whole[3:], atol=1e-5)
    assert (np.diff(whole.mean(axis=1).reshape(2, 3), axis=1) > 0).all()

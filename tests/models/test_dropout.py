"""Dropout against flax's, and its random bits against JAX's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.dropout import Dropout, random_bits


@pytest.mark.parametrize('shape', [(), (1,), (7,), (3, 1), (2, 3, 4, 5), (1, 2, 1, 2, 3)])
@pytest.mark.parametrize('generator', ['threefry2x32', 'rbg'])
def test_bits_are_those_of_jax(shape, generator):
    for seed in range(3):
        key = jax.random.key(seed, impl=generator)
        np.testing.assert_array_equal(random_bits(key, shape), jax.random.bits(key, shape))


@pytest.mark.parametrize('rate', [0.0, 0.1, 0.13, 0.5, 0.999])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_masks_and_values_are_those_of_flax(rate, dtype):
    x = jnp.linspace(-3, 3, 4 * 8 * 8 * 16).reshape(4, 8, 8, 16).astype(dtype)
    rngs = {'dropout': jax.random.key(5)}
    ours = Dropout(rate).apply({}, x, True, rngs=rngs)
    flaxs = nn.Dropout(rate, deterministic=False).apply({}, x, rngs=rngs)
    assert ours.dtype == x.dtype
    np.testing.assert_array_equal(ours, flaxs)


def test_gradient_passes_what_is_kept():
    x = jnp.ones((2, 4, 4, 8))
    rngs = {'dropout': jax.random.key(5)}
    y, pullback = jax.vjp(lambda x: Dropout(0.3).apply({}, x, True, rngs=rngs), x)
    np.testing.assert_array_equal(*pullback(jnp.ones_like(y)), y)


def test_without_training_or_rate_no_key_is_needed():
    x = jnp.ones((2, 3))
    assert Dropout(0.5).apply({}, x, False) is x
    assert Dropout(0.0).apply({}, x, True) is x

"""Layers against flax's, float64 and their own derivatives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from choices import InputError
from models import layers

X = jax.random.normal(jax.random.key(0), (3, 6, 5, 24))


def group_norm(x, gain=1.3, bias=0.2):
    params = {'scale': jnp.full(x.shape[-1], gain), 'bias': jnp.full(x.shape[-1], bias)}
    return layers.GroupNorm().apply({'params': params}, x)


def test_group_norm_is_that_of_flax():
    variables = {'params': {'scale': jnp.arange(24.0), 'bias': jnp.ones(24)}}
    ours = layers.GroupNorm(act=layers.swish).apply(variables, X)
    theirs = nn.swish(nn.GroupNorm(num_groups=6, epsilon=1e-6).apply(variables, X))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('mean', [0.0, 1e2, 1e4])
def test_group_norm_keeps_its_digits_far_from_zero(mean):
    """The error is that of storing x + mean in float32 at all: 6e-8 of the mean."""
    x = X + mean
    groups = np.asarray(x, np.float64).reshape(3, 6, 5, 6, 4)
    centred = groups - groups.mean((1, 2, 4), keepdims=True)
    exact = centred / np.sqrt(centred.var((1, 2, 4), keepdims=True) + 1e-6)
    error = np.abs(group_norm(x, 1.0, 0.0) - exact.reshape(x.shape)).max()
    assert error < 1e-5 + 3e-7 * mean


@pytest.mark.parametrize('order', ['forward', 'reverse', 'forward over reverse'])
def test_derivatives_of_group_norm_are_those_of_its_formula(order):
    def formula(x):
        groups = x.reshape(3, 6, 5, 6, 4)
        mean, var = (f((1, 2, 4), keepdims=True) for f in (groups.mean, groups.var))
        return 1.3 * ((groups - mean) / jnp.sqrt(var + 1e-6)).reshape(x.shape) + 0.2

    def derivative(function):
        def loss(x):
            return jnp.sum(jnp.sin(function(x)) * weights)

        if order == 'forward':
            return jax.jvp(function, (X,), (weights,))[1]
        if order == 'reverse':
            return jax.grad(loss)(X)
        return jax.jvp(jax.grad(loss), (X,), (weights,))[1]

    weights = jax.random.normal(jax.random.key(1), X.shape)
    np.testing.assert_allclose(derivative(group_norm), derivative(formula), rtol=1e-3, atol=1e-4)


def test_group_norm_refuses_channels_that_do_not_divide():
    with pytest.raises(InputError, match='9 channels'):
        group_norm(jnp.ones((1, 2, 2, 9)))


def test_derivatives_of_swish_are_those_of_its_formula():
    """Up to the last bit of a sigmoid near zero or one, which the derivatives multiply by x."""
    x = jnp.linspace(-30, 30, 601)
    for ours, theirs in (
        (layers.swish, nn.swish),
        (jax.grad(layers.swish), jax.grad(nn.swish)),
        (jax.grad(jax.grad(layers.swish)), jax.grad(jax.grad(nn.swish))),
    ):
        np.testing.assert_allclose(jax.vmap(ours)(x), jax.vmap(theirs)(x), rtol=1e-5, atol=4e-6)


def test_fourier_frequencies_are_not_trained():
    projection = layers.GaussianFourierProjection(4, scale=16.0)
    x = jnp.linspace(-2.0, 2.0, 5)
    params = projection.init(jax.random.key(0), x)['params']
    gradient = jax.grad(lambda params: projection.apply({'params': params}, x).sum())(params)
    assert not gradient['W'].any()


@pytest.mark.parametrize('size', [2, 8, 9])
def test_positional_embeddings_are_sines_then_cosines(size):
    x = np.array([0.0, 0.3, 999.0])
    embedding = layers.positional_embedding(jnp.asarray(x), size)
    half = size // 2
    angles = x[:, None] * 1e4 ** (-np.arange(half) / max(half - 1, 1))
    expected = np.concatenate([np.sin(angles), np.cos(angles), np.zeros((3, size % 2))], 1)
    # Angles up to 999 in float32.
    np.testing.assert_allclose(embedding, expected, atol=1e-4)


def test_scale_zero_initialises_to_almost_nothing():
    weights = layers.initializer(0.0)(jax.random.key(0), (3, 3, 16, 16))
    assert 0 < jnp.abs(weights).max() < 1e-5

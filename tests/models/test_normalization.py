"""Normalisations against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from choices import InputError
from models import layers, normalization

X = jax.random.normal(jax.random.key(0), (3, 6, 5, 64)) + jnp.arange(64.0) / 10
RNG = np.random.default_rng(0)


def moments(axes, x=X):
    x = np.asarray(x, np.float64)
    return x, x.mean(axes, keepdims=True), x.var(axes, keepdims=True)


def instance_norm(scale, bias):
    x, mean, var = moments((1, 2))
    return scale * (x - mean) / np.sqrt(var + 1e-5) + bias


def instance_norm_plus(alpha, beta, gamma, ddof=0):
    x, mean, var = moments((1, 2))
    v = mean.var(-1, keepdims=True, ddof=ddof)
    plus = (mean - mean.mean(-1, keepdims=True)) / np.sqrt(v + 1e-5)
    return gamma * ((x - mean) / np.sqrt(var + 1e-5) + alpha * plus) + beta


def variance_norm(scale):
    x, _, var = moments((1, 2))
    return scale * x / np.sqrt(var + 1e-5)


def group_norm(scale, bias):
    """32 groups, here of two channels, and another epsilon."""
    x, mean, var = moments((1, 2, 4), X.reshape(3, 6, 5, 32, 2))
    return scale * ((x - mean) / np.sqrt(var + 1e-6)).reshape(X.shape) + bias


@pytest.mark.parametrize(
    ('name', 'formula', 'shapes'),
    [
        ('InstanceNorm', instance_norm, dict.fromkeys(('scale', 'bias'), (1, 1, 1, 64))),
        (
            'InstanceNorm++',
            instance_norm_plus,
            dict.fromkeys(('alpha', 'beta', 'gamma'), (1, 1, 1, 64)),
        ),
        ('VarianceNorm', variance_norm, {'scale': (1, 1, 1, 64)}),
        ('GroupNorm', group_norm, {'scale': (64,), 'bias': (64,)}),
    ],
)
def test_normalisations_are_their_formulas(name, formula, shapes):
    norm = normalization.NORMALIZATIONS[name](layers.ACTIVATIONS['relu'])
    params = jax.eval_shape(norm.init, jax.random.key(0), X)['params']
    assert {k: v.shape for k, v in params.items()} == shapes
    params = {k: RNG.normal(size=v.shape) for k, v in params.items()}
    found = norm.apply({'params': jax.tree.map(jnp.float32, params)}, X)
    np.testing.assert_allclose(found, np.maximum(formula(**params), 0), rtol=1e-4, atol=1e-5)


def test_the_conditional_normalisation_has_parameters_for_each_label():
    """Gamma, alpha, beta side by side; the variance over channels is unbiased, as in PyTorch."""
    table, labels = RNG.normal(size=(10, 3 * 64)), np.array([3, 0, 9])
    norm = normalization.ConditionalInstanceNorm2dPlus(10)
    params = {'Embed_0': {'embedding': jnp.float32(table)}}
    found = norm.apply({'params': params}, X, jnp.asarray(labels))
    gamma, alpha, beta = np.split(table[labels][:, None, None], 3, axis=-1)
    expected = instance_norm_plus(alpha, beta, gamma, ddof=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_conditional_normalisation_starts_near_one_and_with_no_bias():
    norm = normalization.ConditionalInstanceNorm2dPlus(100)
    table = norm.init(jax.random.key(0), X, jnp.zeros(3, jnp.int32))['params']['Embed_0']
    scales, bias = jnp.split(table['embedding'], [128], axis=1)
    assert not bias.any()
    # 12,800 draws of N(1, 0.02^2): standard errors 1.8e-4 and 1.3e-4.
    assert abs(scales.mean() - 1) < 1e-3
    assert abs(scales.std() - 0.02) < 1e-3


def test_group_norm_of_32_groups_refuses_other_channels():
    norm = normalization.NORMALIZATIONS['GroupNorm']()
    with pytest.raises(InputError, match='48 channels do not divide into 32 groups.*of 32 do'):
        norm.init(jax.random.key(0), jnp.zeros((1, 2, 2, 48)))


def test_activations_are_their_formulas():
    x = np.linspace(-3, 3, 25)
    formulas = {
        'elu': np.where(x > 0, x, np.expm1(x)),
        'relu': np.maximum(x, 0),
        'lrelu': np.where(x > 0, x, 0.2 * x),
        'swish': x / (1 + np.exp(-x)),
    }
    assert formulas.keys() == layers.ACTIVATIONS.keys()
    for name, expected in formulas.items():
        found = layers.ACTIVATIONS[name](jnp.float32(x))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

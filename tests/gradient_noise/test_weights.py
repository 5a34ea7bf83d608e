"""Weights: the moments that SVAG is made of, and the covariance that noise is given."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from choices import ArgumentError
from gradient_noise import weights
from tests.support import exact_steps

HALVES = slice(0, 4), slice(4, 8)


@pytest.mark.parametrize('substeps', [1, 2, 4, 16, 64])
def test_the_pair_has_the_moments_of_the_paper(substeps):
    r = np.array(weights.svag_pair(substeps))
    moments = [(r**k).sum() for k in (1, 2, 3, 4)]
    expected = [1, substeps, (3 * substeps - 1) / 2, (substeps**2 + 2 * substeps - 1) / 2]
    np.testing.assert_allclose(moments, expected, rtol=1e-12)


def test_the_weighted_gradient_is_the_pair_of_gradients_and_the_value_the_plain_mean():
    x = jax.random.normal(jax.random.key(0), (8, 3))
    pair = weights.svag_pair(16)

    def losses(params):
        return jnp.sin(x @ params)

    def weighted(params):
        return weights.weighted_mean(losses(params), weights.svag(8, 16))

    params = jnp.array([0.3, -1.0, 0.5])
    first, second = (jax.grad(lambda p, h=h: losses(p)[h].mean())(params) for h in HALVES)
    value, gradient = jax.value_and_grad(weighted)(params)
    expected = pair.first * first + pair.second * second
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value, losses(params).mean(), rtol=1e-5)


def test_one_substep_is_sgd_to_the_bit():
    params, g1, g2 = jax.random.normal(jax.random.key(1), (3, 100))
    svag = optax.chain(weights.svag_of_gradients(1), optax.sgd(0.1))
    plain = optax.sgd(0.1)
    ours, _ = svag.update(g1, svag.init(params), params, second=g2)
    theirs, _ = plain.update(g1, plain.init(params), params)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(weights.svag(6, 1), [2, 2, 2, 0, 0, 0])


def test_the_link_of_optax_combines_two_gradients():
    svag = optax.chain(weights.svag_of_gradients(4), optax.sgd(0.5 / 4))
    params, g1, g2 = jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    updates, _ = svag.update(g1, svag.init(params), params, second=g2)
    np.testing.assert_allclose(updates, -0.125 * np.array(weights.svag_pair(4)), rtol=1e-6)


def test_noise_has_the_covariance_of_minibatch_gradients():
    """Least squares, where the gradients of examples are known: (x.a - y) x."""
    x = jax.random.normal(jax.random.key(2), (12, 3))
    y, params = x[:, 0] ** 2, jnp.array([0.2, -0.4, 1.0])
    found = exact_steps.linear_noise(
        lambda a, e: 0.5 * (e[0] @ a - e[1]) ** 2, (x, y), 4, 3, params
    )
    gradients = np.asarray((x @ params - y)[:, None] * x, np.float64)
    expected = 3 / 4 * np.cov(gradients.T, bias=True)
    np.testing.assert_allclose(found @ found.T, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: weights.svag(5, 4), '^batch_size: 5; even needed'),
        (lambda: weights.svag_pair(0), '^substeps: 0; a number of at least 1'),
        (lambda: weights.noisy(jnp.zeros(3), 1, 0), '^substeps: 0'),
    ],
)
def test_what_is_no_process_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()

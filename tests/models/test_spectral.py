"""The spectral penalty against singular values by numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from models import spectral


def test_the_penalty_is_the_sum_of_the_largest_singular_values_and_scales():
    a, b, c = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(SHAPES))
    params = {
        'conv': {'kernel': a, 'bias': jnp.full(5, 100.0)},
        'other': {'kernel': b},
        'nin': {'W': c, 'b': jnp.full(3, 100.0)},
        'frequencies': {'W': jnp.full(4, 100.0)},
        'norm': {'scale': jnp.array([1.0, -3.0, 2.0]), 'bias': jnp.full(3, 100.0)},
        'mixing_logit': jnp.full(3, 100.0),
    }
    expected = sum(np.linalg.norm(w.reshape(-1, w.shape[-1]), 2) for w in (a, b, c)) + 3
    # The gap between singular values says how fast it is, and no step takes it further up.
    found = [float(spectral.penalty(params, iterations)) for iterations in (0, 4, 32, 500)]
    assert found == sorted(found)
    assert found[2] > 0.99 * expected
    np.testing.assert_allclose(found[3], expected, rtol=1e-5)


SHAPES = (3, 3, 4, 5), (3, 3, 4, 5), (6, 3)


def test_its_gradient_is_that_of_singular_values():
    w = jax.random.normal(jax.random.key(0), (1, 12, 5))
    found = jax.grad(lambda w: spectral.largest_singular_values(w, 500).sum())(w)
    u, _, v = np.linalg.svd(np.asarray(w[0], np.float64))
    np.testing.assert_allclose(found[0], np.outer(u[:, 0], v[0]), atol=1e-5)


def test_a_kernel_of_zeros_adds_nothing_and_has_no_nan():
    params = {'kernel': jnp.zeros((4, 5))}
    value, gradient = jax.value_and_grad(spectral.penalty)(params)
    assert value == 0
    np.testing.assert_array_equal(gradient['kernel'], 0)

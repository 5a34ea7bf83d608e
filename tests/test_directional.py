"""Derivatives along a direction: weights, orders of convergence, and exactness."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import directional
from choices import ArgumentError
from sde_lib import expand

KEY = jax.random.key(0)


@pytest.fixture
def x64():
    """Float64, in which truncation shows and rounding does not."""
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ('order', 'offsets', 'weights'),
    [
        (1, [-1, 1], [-0.5, 0.5]),
        (2, [-1, 0, 1], [1, -2, 1]),
        (3, [-2, -1, 0, 1, 2], [-0.5, 1, 0, -1, 0.5]),
        (3, [-2, -1, 1, 2], [-0.5, 1, -1, 0.5]),
        (4, [-2, -1, 0, 1, 2], [1, -4, 6, -4, 1]),
        (2, [0, 1, 2], [1, -2, 1]),
    ],
)
def test_difference_weights_are_those_of_textbooks(order, offsets, weights):
    found = directional.difference_weights(np.array(offsets, float), order)
    np.testing.assert_allclose(found, weights, atol=1e-14)


@pytest.mark.parametrize('num', range(1, 8))
def test_offsets_are_symmetric_and_distinct(num):
    offsets = directional.symmetric_offsets(num)
    np.testing.assert_array_equal(offsets, -offsets[::-1])
    assert len(set(offsets)) == num


@pytest.mark.parametrize('method', list(directional.DERIVATIVES))
@pytest.mark.parametrize('order', range(5))
def test_derivatives_of_a_sine_are_known(x64, order, method):
    """sin(w . x) along v: (w . v)^order times the derivative of a sine."""
    x, v, w = jax.random.normal(KEY, (3, 5, 4))
    w, v = w[0], 1e-2 * v

    def f(x):
        return jnp.sin(x @ w)

    found = directional.directional(f, x, v, order, method)
    expected = (v @ w) ** order * jnp.sin(x @ w + order * np.pi / 2)
    # Differences lose digits to rounding, 1e-16 / |v|^order of them, and to derivatives above.
    rtol, atol = (1e-12, 0.0) if method == 'forward' else (1e-3, 1e-14)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize('order', range(1, 5))
def test_differences_converge_at_order_two(x64, order):
    """Slope of the error against the step, in logarithms."""
    x = jax.random.normal(KEY, (1, 3))

    def f(x):
        return jnp.tanh(x).sum(axis=1)

    v = jnp.array([[1.0, -0.5, 0.3]])
    steps = np.geomspace(0.03, 0.12, 4)
    exact = directional.directional(f, x, v, order)
    errors = [abs(directional.finite(f, x, v, [order], h)[0] - exact).item() for h in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope - 2) < 0.15


def test_a_second_difference_of_a_quartic_is_known(x64):
    """-(E_+ + E_- - 2 E_0) / h^2 = -(3 x^2 + h^2 / 2) for E = x^4 / 4."""
    x = jnp.linspace(-2, 2, 9)[:, None]
    h = 0.3
    (found,) = directional.finite(lambda x: -(x[:, 0] ** 4) / 4, x, jnp.ones_like(x), [2], h)
    np.testing.assert_allclose(found, -(3 * x[:, 0] ** 2 + h**2 / 2), rtol=1e-12)


@pytest.mark.parametrize('orders', [(0, 1), (1, 2), (0, 2), (3,)])
def test_differences_in_one_batch_are_those_one_by_one(orders):
    """With something bound for each member, a step of its own, and within another vmap."""
    x, v = jax.random.normal(KEY, (2, 4, 6))
    t, step = jnp.linspace(1, 2, 4), jnp.array([0.1, 0.2, 0.3, 0.5])

    def f(x, t):
        return jnp.sin(expand(t, x) * x)

    found = directional.finite(lambda x: f(x, t), x, v, orders, step)
    offsets = directional.symmetric_offsets(max(orders) + 1)
    for order, derivative in zip(orders, found, strict=True):
        weights = directional.difference_weights(offsets, order)
        alone = [
            sum(
                w * f(x[i : i + 1] + o * h * v[i : i + 1], t[i : i + 1])
                for w, o in zip(weights, offsets, strict=True)
            )
            / h**order
            for i, h in enumerate(step.tolist())
        ]
        np.testing.assert_allclose(derivative, jnp.concatenate(alone), rtol=1e-4, atol=1e-4)
    both = jax.vmap(lambda v: directional.finite(lambda x: f(x, t), x, v, orders, step))(
        jnp.stack([v, 2 * v])
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4),
        [each[0] for each in both],
        found,
    )


@pytest.mark.parametrize('draw', [directional.rademacher, directional.gaussian, directional.sphere])
def test_directions_have_covariance_one(draw):
    drawn = draw(KEY, 40_000, (3, 1)).reshape(-1, 3)
    products = jnp.einsum('ni,nj->nij', drawn, drawn)
    error = np.maximum(products.std(axis=0), 1e-6) / np.sqrt(len(drawn))
    assert np.all(abs(products.mean(axis=0) - np.eye(3)) < 4 * error)


def test_directions_of_the_sphere_have_one_length():
    np.testing.assert_allclose((directional.sphere(KEY, 5, (2, 3)) ** 2).sum((1, 2)), 6, rtol=1e-5)


def test_unknown_methods_are_refused():
    with pytest.raises(ArgumentError, match=r"^method: unknown name 'taylor'.* finite, forward$"):
        directional.directional(jnp.sin, jnp.ones((1, 1)), jnp.ones((1, 1)), 1, 'taylor')

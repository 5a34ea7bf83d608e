"""Score matching of states and times, against what it is in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import directional
import implicit
import sde_lib
from parameterization import Process, energy_process

KEY = jax.random.key(0)
DIM = 20
SDE = sde_lib.VP()
ESTIMATES = [implicit.sliced, implicit.sliced_vr]


def finite(step):
    """Derivatives by differences of this step."""
    return lambda *args: directional.finite(*args, step)


def matrix():
    """A symmetric matrix: score(x) = -A x is that of an energy, and linear."""
    a = jax.random.normal(KEY, (DIM, DIM)) / DIM
    return jnp.eye(DIM) + a + a.T


def linear_field():
    return Process(SDE, lambda x, t: -x @ matrix())


def quadratic_energy():
    return energy_process(SDE, lambda x, t: -0.5 * jnp.einsum('bi,ij,bj->b', x, matrix(), x))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize('step', [0.1, 1.0, 3.0])
@pytest.mark.parametrize('estimate', ESTIMATES)
@pytest.mark.parametrize('make', [linear_field, quadratic_energy])
def test_differences_of_a_linear_score_are_exact_whatever_their_step(x64, make, estimate, step):
    process, t = make(), jnp.zeros(6)
    x, u = jax.random.normal(KEY, (2, 6, DIM))
    found = estimate(process, x, t, u, finite(step))
    np.testing.assert_allclose(found, estimate(process, x, t, u), rtol=1e-10)
    ax, au = x @ matrix(), u @ matrix()
    square = implicit.inner(u, ax) ** 2 if estimate is implicit.sliced else implicit.inner(ax, ax)
    np.testing.assert_allclose(found, 0.5 * square - implicit.inner(u, au), rtol=1e-10)


@pytest.mark.parametrize('estimate', ESTIMATES)
@pytest.mark.parametrize('name', list(implicit.DIRECTIONS))
def test_the_mean_over_directions_is_the_exact_objective(estimate, name):
    """By forward mode and by differences; an energy is the field that is its gradient."""
    num = 20_000
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (1, DIM)), (num, DIM))
    u, t = implicit.DIRECTIONS[name](KEY, num, (DIM,)), jnp.zeros(num)
    (exact,) = implicit.exact(linear_field(), x[:1], t[:1])
    expected = 0.5 * jnp.sum((x[0] @ matrix()) ** 2) - jnp.trace(matrix())
    np.testing.assert_allclose(exact, expected, rtol=1e-5)
    for process in (linear_field(), quadratic_energy()):
        for derivatives in (directional.forward, finite(0.3)):
            draws = np.asarray(estimate(process, x, t, u, derivatives), np.float64)
            assert abs(draws.mean() - expected) < 4 * draws.std() / np.sqrt(num)


def test_the_variance_is_reduced():
    """At draws of N(0, I) and its score: 2 dim of the square alone, over what signs leave, none."""
    process = Process(SDE, lambda x, t: -x)
    x, t = jax.random.normal(KEY, (4000, DIM)), jnp.zeros(4000)
    u = directional.rademacher(jax.random.key(1), 4000, (DIM,))
    stds = [np.std(estimate(process, x, t, u)) for estimate in ESTIMATES]
    # Of (u . x)^2 / 2, sqrt(dim^2 / 2); of |x|^2 / 2, sqrt(dim / 2). Standard error 2 %.
    np.testing.assert_allclose(stds, [DIM / np.sqrt(2), np.sqrt(DIM / 2)], rtol=0.1)


def test_the_divergence_is_the_trace_of_the_jacobian_and_its_gradient_too():
    x = jax.random.normal(KEY, (2, 3, 3, 2))  # More dimensions than are taken together.

    def field(scale, x):
        return jnp.sin(scale * x) * x.sum(axis=(1, 2, 3), keepdims=True)

    def by_jacobian(scale):
        jacobians = jax.vmap(jax.jacfwd(lambda x: field(scale, x[None])[0].reshape(-1)))(x)
        return jnp.trace(jacobians.reshape(2, 18, 18), axis1=1, axis2=2)

    def found(scale):
        return implicit.divergence(lambda x: field(scale, x), x)

    for f, g in ((found, by_jacobian), (jax.jacfwd(found), jax.jacfwd(by_jacobian))):
        np.testing.assert_allclose(jax.jit(f)(1.3), jax.jit(g)(1.3), rtol=1e-4)

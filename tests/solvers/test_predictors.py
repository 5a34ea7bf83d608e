"""Weak convergence of predictors, without a random number.

On one-dimensional data a step is a transition density N(mean(x), std^2), by which the density of
the states is carried on by quadrature. So the error of an expectation is known to many digits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from datasets.mixtures import Mixture
from sde_lib import at
from solvers import predictors

DATA = Mixture(np.array([[-0.9], [0.2], [0.7]]), 0.3)


def expectations(density, points):
    """Those of smooth functions of a state."""
    functions = np.stack([points, points**2, np.cos(points), np.sin(2 * points)])
    return functions @ density * (points[1] - points[0])


def density_at(sde, points, t):
    return np.exp(DATA.log_prob(jnp.asarray(points)[:, None], sde, jnp.asarray(t)))


def after_steps(predictor, sde, times, points):
    """The density of states that started at times[0] with that of the data."""
    process = DATA.process(sde)
    x, spacing = jnp.asarray(points)[:, None], points[1] - points[0]

    @jax.jit
    def carry_on(density, t, s):
        t, s = at(t, x), at(s, x)
        mean = predictor(process, jnp.zeros_like(x), x, t, s).x
        std = predictor(process, jnp.ones_like(x), x, t, s).x - mean
        transition = jnp.exp(-0.5 * ((points[:, None] - mean[:, 0]) / std[:, 0]) ** 2)
        return transition @ (density / (std[:, 0] * jnp.sqrt(2 * jnp.pi))) * spacing

    density = density_at(sde, points, times[0])
    for t, s in zip(times[:-1], times[1:], strict=True):
        density = carry_on(density, t, s)
    return density


@pytest.mark.parametrize('name', ['euler_maruyama', 'reverse_diffusion', 'ancestral'])
@pytest.mark.parametrize(
    ('sde', 'start', 'end'),
    [(sde_lib.VP(), 0.6, 0.1), (sde_lib.SubVP(), 0.6, 0.15), (sde_lib.VE(), 0.55, 0.35)],
    ids=['vp', 'subvp', 've'],
)
def test_the_weak_order_is_one(name, sde, start, end):
    with jax.enable_x64(True):
        points = np.linspace(-6, 6, 1001)
        exact = expectations(density_at(sde, points, end), points)

        def error(steps):
            times = np.linspace(start, end, steps + 1)
            density = after_steps(predictors.PREDICTORS[name](), sde, times, points)
            return np.linalg.norm(expectations(density, points) - exact)

        assert abs(np.log2(error(64) / error(128)) - 1) < 0.25


@pytest.mark.parametrize('name', ['ancestral', 'ancestral_fixed_large', 'ddim'])
def test_the_last_transition_to_the_data_is_the_denoiser(name):
    """From the lowest level of a chain to time 0, the mean is E[x_0 | x]."""
    sde = sde_lib.SMLD()
    t, s = jnp.full(5, 1e-3), jnp.zeros(5)
    x = jnp.linspace(-1, 1, 5)[:, None]
    process = DATA.process(sde)
    found = predictors.PREDICTORS[name]()(process, jnp.ones_like(x), x, t, s)
    np.testing.assert_allclose(found.x_mean, process.denoise(x, t), rtol=1e-5)

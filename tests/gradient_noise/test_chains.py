"""Chains on quadratic losses, where their laws are known; most by the exact law of a step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from gradient_noise import chains
from gradient_noise.chains import SGD, SVAG, NoisyGradient
from tests.support import exact_steps, networks

ETA, H = 0.5, 1.0
SUBSTEPS = [1, 2, 4, 8, 16]


def pulled(x, c):
    """The loss of an example: a spring of constant H to the point c."""
    return 0.5 * H * (x - c) ** 2


# Noise H (mean c - c): variance 3/16, third cumulant -3/32 in units where x moves by -eta noise.
POINTS = jnp.array([0.0, 0.0, 0.0, 1.0])
VARIANCE, THIRD = 3 / 16, 3 / 32


def after(substeps, x):
    return exact_steps.after(SVAG(1, substeps), pulled, POINTS, ETA, 0.0, jnp.float32(x))


def contraction(substeps):
    """By how much the mean is pulled in a step: the same everywhere."""
    return after(substeps, 1.0).mean() - after(substeps, 0.0).mean()


@pytest.mark.parametrize('substeps', SUBSTEPS)
def test_the_stationary_variance_is_that_of_the_sde_up_to_a_closed_form(substeps):
    stationary = after(substeps, 0.0).var() / (1 - contraction(substeps) ** 2)
    of_sde = ETA * H**2 * VARIANCE / (2 * H)
    expected = 1 / (1 - ETA * H / (2 * substeps))
    np.testing.assert_allclose(stationary / of_sde, expected, rtol=1e-5)


@pytest.mark.parametrize('substeps', SUBSTEPS)
def test_the_third_cumulant_falls_to_that_of_the_sde(substeps):
    steps = after(substeps, 0.0)
    third = ((steps - steps.mean()) ** 3).mean() / (1 - contraction(substeps) ** 3)
    scale = (ETA / substeps) ** 3 * (3 * substeps - 1) / 2
    expected = scale * THIRD * H**3 / (1 - (1 - ETA * H / substeps) ** 3)
    np.testing.assert_allclose(third, expected, rtol=1e-4)
    assert abs(third) < 0.2 / substeps * THIRD


@pytest.mark.parametrize('substeps', [*SUBSTEPS, 64])
def test_multiplicative_noise_grows_the_second_moment_as_the_law_says(substeps):
    """Curvatures h +- s: by (1 - eta h / l)^2 + eta^2 s^2 / l a step, to e^(-2 h + eta s^2) T."""
    s, time = 1.0, 2.0
    curvatures = jnp.array([H + s, H - s])
    growth = exact_steps.after(
        SVAG(1, substeps), lambda x, c: 0.5 * c * x**2, curvatures, ETA, 0.0, jnp.float32(1)
    )
    growth = (growth**2).mean()
    np.testing.assert_allclose(
        growth, (1 - ETA * H / substeps) ** 2 + ETA**2 * s**2 / substeps, rtol=1e-5
    )
    grown, of_sde = growth ** (time / ETA * substeps), np.exp((-2 * H + ETA * s**2) * time)
    assert abs(grown / of_sde - 1) < 0.26 / substeps


def test_the_covariance_goes_to_that_of_lyapunov_as_one_over_l():
    """Curvature and covariance that do not commute."""
    curvature = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    points = jnp.array([[0.0, 0.0], [1.0, 0.3], [-0.5, 0.4], [0.1, -1.2]])

    def loss(x, c):
        return 0.5 * (x - c) @ curvature @ (x - c)

    H2 = np.asarray(curvature, np.float64)
    sigma = H2 @ np.cov(points.T, bias=True) @ H2
    of_sde = scipy.linalg.solve_continuous_lyapunov(H2, ETA * sigma)
    errors = []
    for substeps in (2, 4, 8):
        steps = exact_steps.after(SVAG(1, substeps), loss, points, ETA, 0.0, jnp.zeros(2))
        pull = np.eye(2) - ETA / substeps * H2
        stationary = scipy.linalg.solve_discrete_lyapunov(pull, np.cov(steps.T, bias=True))
        np.testing.assert_allclose(
            np.cov(steps.T, bias=True), ETA**2 / substeps * sigma, rtol=1e-4, atol=1e-6
        )
        errors.append(np.abs(stationary - of_sde).max())
    ratios = np.array(errors[:-1]) / errors[1:]
    np.testing.assert_allclose(ratios, 2, rtol=0.3)


def test_weight_decay_is_part_of_the_drift():
    steps = exact_steps.after(SVAG(1, 4), pulled, POINTS, ETA, 0.1, jnp.float32(2))
    np.testing.assert_allclose(
        steps.mean(), 2 - ETA / 4 * (H * (2 - POINTS.mean()) + 0.1 * 2), rtol=1e-6
    )


@pytest.mark.parametrize('chain', [SGD(2), SVAG(2, 4), NoisyGradient(2, 4)], ids=str)
def test_a_run_comes_to_the_variance_of_its_law(chain):
    """4096 chains from 0, ten steps of SGD: squares of nearly normal numbers have a relative
    standard error of sqrt(2 / 4096), 2.2 %."""
    run = functools.partial(chains.run, chain, pulled, POINTS, ETA, 0.0, jnp.zeros(()))
    keys = jax.random.split(jax.random.key(0), 4096)
    x, records = networks.quick_jit(jax.vmap(lambda key: run(key, 2, 5, lambda x: x)))(keys)
    np.testing.assert_array_equal(records[:, -1], x)
    expected = ETA * VARIANCE / 2 / (2 * H) / (1 - ETA * H / (2 * chain.substeps))
    assert abs(np.var(x) / expected - 1) < 0.09
    # Ten steps are not quite all: what is left of the beginning.
    left = POINTS.mean() * (1 - ETA * H / chain.substeps) ** (10 * chain.substeps)
    assert abs(x.mean() - (POINTS.mean() - left)) < 4 * np.sqrt(expected / 4096)

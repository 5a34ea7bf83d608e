"""Metropolis-adjusted steps: the law that they keep, and how often they move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import sampling
import sde_lib
from choices import ArgumentError
from parameterization import Process, energy_process
from solvers import correctors
from tests.support import mixture

SDE, T = sde_lib.VP(), 0.3


def of_mixture(dim):
    """The mixture of the tests as an energy, off by a constant that depends on the time."""
    data = mixture.example(dim)

    def log_density(x, t):
        return jax.vmap(lambda x, t: data.log_prob(x[None], SDE, t)[0] + 7 * t)(x, t)

    return data, energy_process(SDE, log_density)


def chain(step, process, x, num_steps, key):
    """The states of a chain after each of its steps, [num_steps, batch, dim]."""
    t = jnp.full(len(x), T)

    def advance(x, key):
        noise, *more = jax.random.normal(key, (step.evaluations, *x.shape))
        x = step(process, noise, x, t, t, *more).x
        return x, x

    return jax.jit(lambda x: jax.lax.scan(advance, x, jax.random.split(key, num_steps))[1])(x)


def test_metropolis_has_the_right_law_at_steps_where_langevin_does_not():
    """Second moments of p_t, in 1,000 independent chains, started in p_t, of 100 steps."""
    data, process = of_mixture(2)
    key_data, key_noise, key_chain = jax.random.split(jax.random.key(3), 3)
    num = 1000
    noise = jax.random.normal(key_noise, (num, 2))
    start = SDE.perturb(data.sample(key_data, num), jnp.full(num, T), noise)
    exact = SDE.perturb(
        data.sample(jax.random.key(8), 400_000),
        jnp.full(400_000, T),
        jax.random.normal(jax.random.key(9), (400_000, 2)),
    )
    expected = float(jnp.sum(exact**2, axis=1).mean())
    snr = 0.6  # A step of 0.72 sigma^2.

    def second_moment(step):
        """Of the last 60 steps: chains are independent, so their means have a standard error."""
        states = chain(step, process, start, 100, key_chain)[40:]
        of_chains = jnp.sum(states**2, axis=2).mean(axis=0)
        return float(of_chains.mean()), float(of_chains.std() / np.sqrt(num))

    adjusted, error = second_moment(correctors.Metropolis(snr))
    assert abs(adjusted - expected) < 4 * error
    # An unadjusted chain of N(0, v) has the variance v / (1 - size / (2 v)).
    biased, error = second_moment(correctors.AnnealedLangevin(snr))
    assert biased - expected > 10 * error


metropolis_step = jax.jit(correctors.metropolis_step)


def test_with_the_stated_step_rule_most_proposals_are_accepted_in_many_dimensions():
    """57 % in the limit of many dimensions (Roberts & Rosenthal 1998)."""
    num, dim = 4000, 1024
    normal = energy_process(SDE, lambda x, t: -0.5 * jnp.sum(x**2, axis=1))
    x, noise, chance = jax.random.normal(jax.random.key(0), (3, num, dim))
    size = jnp.full(num, 2 * (0.82 * dim ** (-1 / 6)) ** 2)
    moved = metropolis_step(normal, noise, chance, x, size, size)
    # The standard error is 0.8 %; the limit is reached slowly.
    assert abs(float(moved.accepted.mean()) - 0.574) < 4 * 0.008 + 0.02
    changed = np.any(np.asarray(moved.x != x), axis=1)
    np.testing.assert_array_equal(changed, moved.accepted)


def test_what_is_not_a_number_is_not_accepted():
    process = energy_process(SDE, lambda x, t: jnp.where(x[:, 0] > 0, jnp.nan, 0.0))
    x, noise = -jnp.ones((4, 2)), jnp.full((4, 2), 5.0)
    moved = metropolis_step(process, noise, noise, x, jnp.ones(4), jnp.ones(4))
    np.testing.assert_array_equal(moved.x, x)


def test_metropolis_needs_a_density():
    process, x = Process(SDE, lambda x, t: -x), jnp.ones((2, 2))
    with pytest.raises(ArgumentError, match="^corrector: 'mala' compares densities"):
        correctors.Metropolis()(process, x, x, jnp.ones(2), jnp.ones(2), x)
    with pytest.raises(ArgumentError, match="^temperature: 0.5; the corrector 'mala'"):
        sampling.create('pc', corrector='mala', temperature=0.5)


def test_corrections_of_an_energy_mend_the_error_of_coarse_steps():
    data, process = of_mixture(2)
    truth = jnp.linalg.norm(data.sample(jax.random.key(1), 100_000), axis=1)
    image_keys = keys.per_image(jax.random.key(0), 3000)

    def draw(**fields):
        sampler = sampling.create(
            'pc', predictor='ancestral', steps=40, spacing='log_snr', **fields
        )
        drawn = jax.jit(lambda image_keys: sampler(image_keys, process, (2,)))(image_keys)
        return drawn, float(jnp.linalg.norm(drawn.x, axis=1).mean() - truth.mean())

    corrected, error = draw(corrector='mala', corrector_steps=3, snr=0.5)
    np.testing.assert_array_equal(corrected.nfe, 40 * 7)
    standard_error = float(truth.std()) / np.sqrt(3000)
    assert abs(error) < 4 * standard_error
    plain, error = draw()
    np.testing.assert_array_equal(plain.nfe, 40)
    assert abs(error) > 8 * standard_error

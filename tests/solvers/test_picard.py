"""Parallel-in-time sampling against the sequential sampler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import sampling
import sde_lib
from solvers import grids, picard, predictors
from solvers.grid_solver import predictor_corrector
from tests.support import mixture
from tests.test_sampling import assert_is_distributed_as

STEPS = 64


def draw(sampler, num, score_fn):
    """Samples of one compiled program."""
    image_keys = keys.per_image(jax.random.key(0), num)
    return jax.jit(lambda image_keys: sampler(image_keys, score_fn, (2,)))(image_keys)


def pair(sde, predictor, eta, window, **options):
    """The parallel sampler, and the sequential one of the same steps."""
    times = grids.create(grids.log_snr_grid, sde, STEPS, max(1e-3 * sde.T, sde.t_min))
    step = functools.partial(predictor, eta=eta)
    parallel = functools.partial(
        picard.sample,
        sde=sde,
        times=times,
        predictor=step,
        stochastic=eta > 0,
        window=window,
        **options,
    )
    solver = predictor_corrector(step, stochastic=eta > 0)
    return parallel, functools.partial(sampling.on_grid, sde=sde, times=times, solver=solver)


@pytest.mark.parametrize(
    ('name', 'predictor', 'eta', 'window', 'denoise'),
    [
        ('vp', predictors.ddim, 0.0, STEPS, True),
        ('vp', predictors.ancestral, 1.0, 24, True),
        ('ve', predictors.reverse_diffusion, 1.0, 2 * STEPS, False),
        ('ddpm', predictors.ancestral_fixed_large, 1.0, 24, True),
    ],
)
def test_it_agrees_with_the_sequential_sampler(name, predictor, eta, window, denoise):
    sde = sde_lib.create(name)
    score_fn = mixture.example().score_fn(sde)
    parallel, sequential = pair(sde, predictor, eta, window, tolerance=1e-3, denoise=denoise)
    found = draw(parallel, 8, score_fn)
    expected = draw(functools.partial(sequential, denoise=denoise), 8, score_fn)
    # Sums of increments round at the size of the states: VE begins at 50.
    np.testing.assert_allclose(found.x, expected.x, atol=2e-3)
    extra = int(denoise and eta == 0)
    np.testing.assert_array_equal(found.nfe, (found.rounds - extra) * min(window, STEPS) + extra)


def test_its_trajectory_is_that_of_the_sequential_sampler():
    sde = sde_lib.VP()
    score_fn = mixture.example().score_fn(sde)
    samplers = pair(sde, predictors.ancestral, 1.0, 24)
    found, expected = (
        draw(functools.partial(sampler, trajectory=True), 4, score_fn).trajectory
        for sampler in samplers
    )
    assert found.shape == (STEPS + 1, 4, 2)
    # Within the tolerance of a state, a tenth of its step's noise, and what it grows to.
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert np.abs(found - expected).mean() < 5e-3


def test_there_are_fewer_rounds_than_steps():
    """At the published tolerance the law is kept in a fraction of the steps in a row."""
    sde, data = sde_lib.VP(), mixture.example()
    parallel, _ = pair(sde, predictors.ancestral, 1.0, STEPS)
    drawn = draw(parallel, 2000, data.score_fn(sde))
    assert_is_distributed_as(drawn.x, data)
    assert drawn.rounds.mean() < STEPS / 2


def test_a_window_of_one_step_is_the_sequential_sampler():
    sde = sde_lib.VP()
    score_fn = mixture.example().score_fn(sde)
    parallel, sequential = pair(sde, predictors.ancestral, 1.0, 1)
    found, expected = draw(parallel, 4, score_fn), draw(sequential, 4, score_fn)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-4)
    np.testing.assert_array_equal(found.nfe, STEPS)
    np.testing.assert_array_equal(found.rounds, STEPS)


def test_nfe_is_the_number_of_network_calls():
    """Calls see a whole window: each counts as the states in it."""
    sde, sizes = sde_lib.VP(), []
    exact = mixture.example().score_fn(sde)

    def score_fn(x, t):
        size = jax.pure_callback(
            lambda x: (sizes.append(len(x)), x)[1], x, x, vmap_method='sequential'
        )
        return exact(size, t)

    parallel, _ = pair(sde, predictors.ddim, 0.0, 10)
    drawn = jax.block_until_ready(draw(parallel, 1, score_fn))
    assert int(drawn.nfe[0]) == sum(sizes)
    assert int(drawn.rounds[0]) == len(sizes)


def test_a_sample_does_not_depend_on_its_batch():
    sde = sde_lib.VP()
    parallel, _ = pair(sde, predictors.ancestral, 1.0, 24)
    alone, together = (draw(parallel, num, mixture.example().score_fn(sde)) for num in (1, 8))
    np.testing.assert_allclose(alone.x[0], together.x[0], atol=1e-5)
    assert int(alone.rounds[0]) == int(together.rounds[0])
    assert jnp.unique(together.rounds).size > 1

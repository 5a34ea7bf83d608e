"""Parallel-in-time sampling against the sequential sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import sde_lib
from sampling import GridSampler
from solvers.grid_solver import PredictorCorrector
from solvers.grids import TimeGrid
from solvers.picard import Picard
from solvers.predictors import DDIM, Ancestral, AncestralFixedLarge, ReverseDiffusion
from tests.support import mixture
from tests.test_sampling import assert_is_distributed_as

STEPS = 64


def draw(sampler, num, process):
    """Samples of one compiled program."""
    image_keys = keys.per_image(jax.random.key(0), num)
    return jax.jit(lambda image_keys: sampler(image_keys, process, (2,)))(image_keys)


def pair(predictor, window, tolerance=0.1, **options):
    """The parallel sampler, and the sequential one of the same steps."""
    grid, options = TimeGrid(STEPS, 'log_snr'), {'t_min': 1e-3, **options}
    parallel = Picard(predictor, window, tolerance, grid=grid, **options)
    return parallel, GridSampler(PredictorCorrector(predictor), grid=grid, **options)


@pytest.mark.parametrize(
    ('name', 'predictor', 'window', 'denoise'),
    [
        ('vp', DDIM(), STEPS, True),
        ('vp', Ancestral(), 24, True),
        ('ve', ReverseDiffusion(), 2 * STEPS, False),
        ('ddpm', AncestralFixedLarge(), 24, True),
    ],
)
def test_it_agrees_with_the_sequential_sampler(name, predictor, window, denoise):
    process = mixture.example().process(sde_lib.create(name))
    samplers = pair(predictor, window, tolerance=1e-3, denoise=denoise)
    found, expected = (draw(sampler, 8, process) for sampler in samplers)
    # Sums of increments round at the size of the states: VE begins at 50.
    np.testing.assert_allclose(found.x, expected.x, atol=2e-3)
    extra = int(denoise and predictor.eta == 0)
    np.testing.assert_array_equal(found.nfe, (found.rounds - extra) * min(window, STEPS) + extra)


def test_its_trajectory_is_that_of_the_sequential_sampler():
    process = mixture.example().process(sde_lib.VP())
    samplers = pair(Ancestral(), 24, trajectory=True)
    found, expected = (draw(sampler, 4, process).trajectory for sampler in samplers)
    assert found.shape == (STEPS + 1, 4, 2)
    # Within the tolerance of a state, a tenth of its step's noise, and what it grows to.
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert np.abs(found - expected).mean() < 5e-3


def test_there_are_fewer_rounds_than_steps():
    """At the published tolerance the law is kept in a fraction of the steps in a row."""
    data = mixture.example()
    parallel, _ = pair(Ancestral(), STEPS)
    drawn = draw(parallel, 2000, data.process(sde_lib.VP()))
    assert_is_distributed_as(drawn.x, data)
    assert drawn.rounds.mean() < STEPS / 2


def test_a_window_of_one_step_is_the_sequential_sampler():
    process = mixture.example().process(sde_lib.VP())
    found, expected = (draw(sampler, 4, process) for sampler in pair(Ancestral(), 1))
    np.testing.assert_allclose(found.x, expected.x, atol=1e-4)
    np.testing.assert_array_equal(found.nfe, STEPS)
    np.testing.assert_array_equal(found.rounds, STEPS)


def test_nfe_is_the_number_of_network_calls():
    """Calls see a whole window: each counts as the states in it."""
    process, sizes = mixture.example().process(sde_lib.VP()), []

    def score(x, t):
        x = jax.pure_callback(
            lambda x: (sizes.append(len(x)), x)[1], x, x, vmap_method='sequential'
        )
        return process.score(x, t)

    parallel, _ = pair(DDIM(), 10)
    drawn = jax.block_until_ready(draw(parallel, 1, process.with_score(score)))
    assert int(drawn.nfe[0]) == sum(sizes)
    assert int(drawn.rounds[0]) == len(sizes)


def test_a_sample_does_not_depend_on_its_batch():
    process = mixture.example().process(sde_lib.VP())
    parallel, _ = pair(Ancestral(), 24)
    alone, together = (draw(parallel, num, process) for num in (1, 8))
    np.testing.assert_allclose(alone.x[0], together.x[0], atol=1e-5)
    assert int(alone.rounds[0]) == int(together.rounds[0])
    assert jnp.unique(together.rounds).size > 1

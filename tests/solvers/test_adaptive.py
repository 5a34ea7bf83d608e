"""Adaptive stepping of the reverse SDE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import sde_lib
from datasets.mixtures import Mixture
from parameterization import Process
from solvers import adaptive, reverse_sde
from solvers.adaptive import AdaptiveSDE
from solvers.grids import TimeGrid
from solvers.reverse_sde import ReverseSDE
from tests.support import counting, mixture
from tests.test_sampling import assert_is_distributed_as

SDE = sde_lib.VP()


def draw(num=1, process=None, method=AdaptiveSDE, **options):
    """Samples of one compiled program."""
    process = process or mixture.example().process(SDE)
    sampler = method(t_min=1e-3, **options)
    image_keys = keys.per_image(jax.random.key(0), num)
    return jax.jit(lambda image_keys: sampler(image_keys, process, (2,)))(image_keys)


@pytest.mark.parametrize('name', ['vp', 've'])
def test_samples_are_from_the_mixture(name):
    data = mixture.example()
    drawn = draw(2000, data.process(sde_lib.create(name)))
    assert_is_distributed_as(drawn.x, data)


def test_without_noise_it_solves_the_probability_flow():
    """Closed form of one Gaussian N(0, std^2): x(t) is in proportion to the standard deviation."""
    std = 0.3

    def deviation(t):
        return jnp.sqrt((SDE.alpha(t) * std) ** 2 + SDE.sigma(t) ** 2)

    process = Process(SDE, lambda x, t: -x / deviation(t)[:, None] ** 2)
    drawn = draw(4, process, eta=0.0, rtol=1e-4, atol=1e-4, denoise=False)
    prior = keys.normal(keys.per_image(jax.random.key(0), 4), 0, (2,))
    expected = prior * deviation(jnp.array(1e-3)) / deviation(jnp.array(1.0))
    np.testing.assert_allclose(drawn.x, expected, atol=2e-3)


@pytest.mark.parametrize('method', [AdaptiveSDE, ReverseSDE])
@pytest.mark.slow
def test_a_trajectory_leads_from_the_prior_to_the_samples(method):
    """On the way states are distributed as the data with noise are."""
    data, options = mixture.example(), {'grid': TimeGrid(3, 'log_snr'), 'denoise': False}
    drawn = draw(2000, method=method, trajectory=True, **options)
    assert drawn.trajectory.shape == (4, 2000, 2)
    prior = keys.normal(keys.per_image(jax.random.key(0), 2000), 0, (2,))
    np.testing.assert_allclose(drawn.trajectory[0], prior, atol=1e-6)
    np.testing.assert_allclose(drawn.trajectory[3], drawn.x, atol=1e-6)
    for t, x in zip(drawn.times[1:3], drawn.trajectory[1:3], strict=True):
        alpha, sigma = SDE.alpha(t), SDE.sigma(t)
        on_the_way = Mixture(alpha * data.means, float(jnp.hypot(alpha * data.std, sigma)))
        assert_is_distributed_as(x, on_the_way)
    assert draw(1, method=method).trajectory is None


def test_finer_tolerances_follow_the_same_path():
    """Rejected steps see a part of the noise that the longer ones saw."""
    drawn = [draw(32, rtol=tol, atol=tol) for tol in (0.1, 0.02, 0.004)]
    errors = [np.abs(each.x - drawn[2].x).mean() for each in drawn]
    assert errors[1] < 0.5 * errors[0] < 0.1
    assert 1.5 * drawn[0].nfe.mean() < drawn[1].nfe.mean() < drawn[2].nfe.mean() / 1.5


def test_nfe_is_the_number_of_network_calls():
    process, calls = counting.counted(mixture.example().process(SDE))
    drawn = jax.block_until_ready(draw(1, process))
    assert int(drawn.nfe[0]) == len(calls)


def test_images_have_steps_of_their_own():
    """That they do not depend on their batch is shown of all methods by test_image_drawing.py."""
    assert len(set(draw(8).nfe.tolist())) > 1


def test_increments_over_parts_of_a_step_add_up():
    ends = jnp.float32(0.0), jnp.float32(1.0)
    path = reverse_sde.brownian_path(jax.random.key(0), (3,), *ends)
    whole = path.evaluate(jnp.float32(0.1), jnp.float32(0.7))
    parts = path.evaluate(jnp.float32(0.1), jnp.float32(0.4)) + path.evaluate(
        jnp.float32(0.4), jnp.float32(0.7)
    )
    np.testing.assert_allclose(whole, parts, atol=1e-5)


def test_an_image_that_takes_too_many_steps_is_not_done(monkeypatch):
    monkeypatch.setattr(adaptive, 'MAX_STEPS', 5)
    ending = draw(1).ending
    assert not ending.is_done[0]
    assert ending.steps[0] == 5
    assert 1e-3 < ending.t_last[0] < 1

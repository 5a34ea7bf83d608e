"""What became of each image of a batch: solves that stand still end alone, and are told apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import likelihood
import sampling
import sde_lib
from solvers import endings
from solvers.endings import Ending
from solvers.ode import ODESolver
from tests.support import mixture

# Many programs are compiled.
pytestmark = pytest.mark.slow

SDE = sde_lib.VP()
BROKEN = 0.5  # where the network below breaks
METHODS = ('ode', 'sde', 'adaptive_sde')
TOLERANCES = {'rtol': 1e-2, 'atol': 1e-2}


def broken(which=True):
    """The process of a score that is no number before BROKEN; `which`: or is one all the same."""
    exact = mixture.example().process(SDE)
    return exact.with_score(
        lambda x, t: jnp.where(which & (t < BROKEN)[:, None], jnp.nan, exact.score(x, t))
    )


def draw(method, process, num=4, **options):
    sampler = sampling.create(method, t_min=1e-2, **{**TOLERANCES, **options})
    image_keys = keys.per_image(jax.random.key(0), num)
    return jax.jit(lambda image_keys: sampler(image_keys, process, (2,)))(image_keys)


@pytest.mark.parametrize('method', METHODS)
def test_who_stands_still_says_where(method):
    found = draw(method, broken()).ending
    assert not found.is_done.any()
    np.testing.assert_allclose(found.t_last, BROKEN, atol=0.05)


@pytest.mark.parametrize('method', METHODS)
def test_of_a_network_without_numbers_few_steps_are_tried(method):
    """Not all the steps that there may be, each for the price of an evaluation."""
    process = mixture.example().process(SDE).with_score(lambda x, t: jnp.nan * x)
    found = draw(method, process).ending
    assert not found.is_done.any()
    np.testing.assert_allclose(found.t_last, 1.0, atol=1e-3)
    assert found.steps.max() < 100


@pytest.mark.parametrize('method', METHODS)
def test_the_others_of_the_batch_are_what_they_are_without_it(method):
    expected = draw(method, mixture.example().process(SDE))
    assert expected.ending.is_done.all()
    np.testing.assert_allclose(expected.ending.t_last, 1e-2, rtol=1e-5)

    sampler = sampling.create(method, t_min=1e-2, **TOLERANCES)
    image_keys = keys.per_image(jax.random.key(0), 4)

    def one(image_key, is_broken):
        drawn = sampler(image_key[None], broken(is_broken), (2,))
        return jax.tree.map(lambda a: a[0], drawn)

    found = jax.jit(jax.vmap(one))(image_keys, jnp.arange(4) == 2)
    assert found.ending.is_done.tolist() == [True, True, False, True]
    others = np.array([0, 1, 3])
    np.testing.assert_allclose(found.x[others], expected.x[others], atol=1e-3)


@pytest.mark.parametrize('method', ['ode', 'sde'])
def test_a_trajectory_that_is_cut_says_where(method):
    found = draw(method, broken(), trajectory=True, steps=3)
    np.testing.assert_allclose(found.ending.t_last, BROKEN, atol=0.05)


def test_a_likelihood_says_which_images_have_none():
    x = mixture.example().sample(jax.random.key(1), 3)
    found = likelihood.log_prob(
        keys.per_image(jax.random.key(0), 3),
        broken(),
        x,
        solver=ODESolver('dopri5', 1e-3, 1e-3),
    )
    assert not found.ending.is_done.any()


def test_a_grid_may_have_more_steps_than_an_adaptive_solver():
    found = draw('ode', mixture.example().process(SDE), 1, adaptive=False, steps=10_500)
    assert found.ending.is_done.all()
    assert found.ending.steps[0] == 10_500


def test_of_several_endings_the_first_that_is_not_done_counts():
    done = Ending(jnp.array([True, True]), jnp.array([0.1, 0.1]), jnp.array([5, 5]))
    cut = Ending(jnp.array([True, False]), jnp.array([0.1, 0.7]), jnp.array([6, 9]))
    found = endings.first_of(done, cut)
    assert found.is_done.tolist() == [True, False]
    np.testing.assert_allclose(found.t_last, [0.1, 0.7])
    assert found.steps.tolist() == [5, 9]

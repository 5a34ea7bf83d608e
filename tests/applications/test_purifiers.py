"""Purifiers on data whose scores are known: what each step takes away, and what comes back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import keys
import sampling
import sde_lib
from applications.purification import purifiers
from applications.purification.purifiers import (
    ADP,
    DenoiseOnce,
    DiffPure,
    Noise,
    Nothing,
    PublishedADP,
)
from datasets.mixtures import Mixture
from parameterization import Process
from tests.support import gaussian, mixture

SDE = sde_lib.VP()
KEYS = keys.per_image(jax.random.key(0), 4)
LEVEL = 0.8


def images(num=4):
    return jax.random.normal(jax.random.key(1), (num, *gaussian.SHAPE))


def residual(data, y):
    return np.asarray(y).reshape(len(y), -1) - data.mean


# The step in closed form


def test_a_step_shrinks_what_is_not_the_mean_by_the_rate():
    """Of N(mean, v I), whatever v and the level."""
    for std, rate in ((0.5, 0.5), (0.1, 0.9)):
        data, purifier = gaussian.isotropic(std), ADP(level=LEVEL, rate=rate, steps=1)
        found = purifier(KEYS, data.process(SDE), images())
        before = residual(data, purifier.noised(KEYS, images()))
        np.testing.assert_allclose(residual(data, found.x), (1 - rate) * before, atol=1e-5)
        np.testing.assert_array_equal(found.nfe, 2)


def test_levels_fall_with_the_noise_down_to_a_floor():
    assert ADP(level=0.4, rate=0.5, steps=5).levels == (0.4, 0.2, 0.1, 0.05, 0.05)
    assert ADP(level=0.01, rate=0.5, steps=2).levels == (0.01, 0.01)


def test_no_step_is_longer_than_to_the_denoised_image():
    """A step of rate 1 is E[x_0 | y], as one evaluation finds it."""
    process = gaussian.correlated().process(SDE)
    by_ascent = ADP(level=LEVEL, rate=1.0, steps=1)(KEYS, process, images())
    denoised = DenoiseOnce(level=LEVEL)(KEYS, process, images())
    np.testing.assert_allclose(by_ascent.x, denoised.x, atol=2e-5)
    np.testing.assert_array_equal(denoised.nfe, 1)


@pytest.mark.parametrize(
    'sde', [SDE, sde_lib.VE(), sde_lib.SubVP()], ids=lambda s: type(s).__name__
)
def test_the_curvature_is_that_of_linear_algebra(sde):
    """g (C + s^2 I)^-1 g / |g|^2, between the extreme eigenvalues; the same for every SDE."""
    data, y = gaussian.correlated(), images()
    found = purifiers.ascent(data.process(sde), y, purifiers.time_of(sde, LEVEL))
    precision = np.linalg.inv(data.covariance + LEVEL**2 * np.eye(4))
    score = -residual(data, y) @ precision
    curvature = np.einsum('bi,ij,bj->b', score, precision, score) / (score**2).sum(1)
    np.testing.assert_allclose(found.score.reshape(4, -1), score, rtol=1e-4)
    np.testing.assert_allclose(found.curvature, curvature, rtol=1e-4)
    low, high = np.linalg.eigvalsh(precision)[[0, -1]]
    assert np.all((curvature > low) & (curvature < high))


def test_the_published_finite_difference_tends_to_the_derivative():
    """With an error in proportion to its step."""
    process, t = mixture.example().process(SDE), purifiers.time_of(SDE, LEVEL)
    y = jax.random.normal(jax.random.key(2), (50, 2))
    exact = purifiers.ascent(process, y, t)

    def difference(delta):
        score, square = exact.score, jnp.sum(exact.score**2, 1)
        ahead = purifiers.ascent(process, y + delta * score, t).score
        return (1 - jnp.sum(score * ahead, 1) / square) / delta

    errors = [np.abs(difference(d) - exact.curvature).mean() for d in (0.1, 0.05, 0.025)]
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.15)


def test_the_published_path_does_not_change_with_the_scale_of_the_score():
    process = mixture.example().process(SDE)
    thrice = process.with_score(lambda x, t: 3 * process.score(x, t))
    purifier = PublishedADP(level=LEVEL, sizes=(0.0, 1e3), stopping=-1.0, low=-9.0, high=9.0)
    x = jax.random.normal(jax.random.key(2), (4, 2))
    # Where the density is not concave the published step is not in proportion to 1 / score.
    found, other = (purifier(KEYS, p, x).x for p in (process, thrice))
    assert np.abs(found - x).max() > 0.1
    np.testing.assert_allclose(found, other, atol=1e-4)


# Faults of the public code


def constant_score(x, t):
    """1 / alpha in every direction: a slope of 1 without curvature, at every level."""
    return jnp.ones_like(x) / sde_lib.expand(SDE.alpha(t), x)


def test_the_network_is_told_the_level_of_each_step():
    """Without curvature a step is rate s^2 of the level that it is told."""
    purifier = ADP(level=0.5, rate=0.5, steps=3)
    found = purifier(KEYS, Process(SDE, constant_score), images()).x
    moved = found - purifier.noised(KEYS, images())
    np.testing.assert_allclose(moved, 0.5 * (0.5**2 + 0.25**2 + 0.125**2), rtol=1e-4)


def test_the_range_of_images_does_not_matter():
    """Images of [0, 1] at half the level are purified to halves of those of [-1, 1]."""
    wide, data = PublishedADP(level=0.5), gaussian.correlated()
    narrow = dataclasses.replace(wide, level=0.25, low=0.0)
    half = gaussian.Gaussian((data.mean + 1) / 2, data.covariance / 4)
    x = jnp.clip(images(), -1, 1)
    found = wide(KEYS, data.process(SDE), x).x
    of_half = narrow(KEYS, half.process(SDE), (x + 1) / 2).x
    np.testing.assert_allclose(2 * of_half - 1, found, atol=2e-4)


def test_an_image_that_stops_stops_alone():
    """The published rule ends a batch when all have stopped; here each image is as it were alone,
    and does not move after a short step."""
    curvature = jnp.array([1e-6, 50.0, 1e4, -1.0])
    purifier = PublishedADP()
    sizes = purifier.step_size(curvature)
    np.testing.assert_allclose(sizes, [0.4, 1e-3, 4e-5, 4e-5], rtol=1e-5)
    # A slope of 1, so that each image's steps are as long as its curvature says.
    stopping = dataclasses.replace(purifier, level=1e-3, stopping=1.0)
    moving = dataclasses.replace(stopping, stopping=0.0)
    process, x = Process(SDE, constant_score), jnp.zeros((4, *gaussian.SHAPE))
    once, ten_times = (np.mean(p(KEYS, process, x).x) for p in (stopping, moving))
    # Curvature 0: the shortest step, ten times or once; noise of 0.001 is in both.
    np.testing.assert_allclose(ten_times - once, 9 * 4e-5, rtol=1e-2)


# What comes back


PURIFIERS = [
    Nothing(),
    Noise(level=LEVEL),
    DenoiseOnce(level=LEVEL),
    ADP(level=LEVEL),
    PublishedADP(level=LEVEL, steps=2),
    DiffPure(level=LEVEL, sampler=sampling.create('pc', predictor='ancestral', steps=3)),
    DiffPure(level=LEVEL, sampler=sampling.create('dpmpp_2m', steps=3, spacing='log_snr')),
]


@pytest.mark.parametrize('purifier', PURIFIERS, ids=lambda purifier: type(purifier).__name__)
def test_an_image_is_its_own_in_every_batch(purifier):
    process, x = gaussian.correlated().process(SDE), images()
    run = jax.jit(lambda image_keys, x: purifier(image_keys, process, x))
    found, alone = run(KEYS, x), run(KEYS[2:3], x[2:3])
    np.testing.assert_allclose(found.x[2:3], alone.x, atol=1e-5)
    assert found.x.shape == x.shape
    assert found.nfe.shape == found.ending.is_done.shape == (4,)


@pytest.mark.parametrize('purifier', PURIFIERS[2:], ids=lambda purifier: type(purifier).__name__)
def test_the_gradient_is_that_of_finite_differences(purifier):
    """Through step sizes, recomputation and samplers too."""
    process, x = gaussian.correlated().process(SDE), 0.3 * images()

    def weighed(x):
        return jnp.sum(jnp.cos(purifier(KEYS, process, x).x))

    direction = jax.random.normal(jax.random.key(5), x.shape)
    slope = jnp.sum(jax.jit(jax.grad(weighed))(x) * direction)
    ahead, behind = (jax.jit(weighed)(x + h * direction) for h in (2e-3, -2e-3))
    np.testing.assert_allclose(slope, (ahead - behind) / 4e-3, rtol=0.02, atol=2e-2)


NUM, STD = 2000, 0.05
MANY = keys.per_image(jax.random.key(3), NUM)


def two_points():
    """Two classes, at 1 and at -1, of small width."""
    return Mixture(jnp.array([[1.0], [-1.0]]), STD).process(SDE)


def backwards(level, x, **fields):
    sampler = sampling.create('pc', predictor='ddim', steps=40, spacing='log_snr', **fields)
    purifier = DiffPure(level=level, sampler=sampler)
    run = jax.jit(lambda x: purifier(MANY, two_points(), x).x)
    return run(x), purifier.noised(MANY, x)


def test_a_score_adds_no_robustness_to_two_points_on_a_line():
    """The flow keeps the side on which the noise has left an image, and brings it to the class
    there: P(right) = Phi((1 - shift) / level), as of noise alone.
    """
    shift, level = 0.5, 1.0
    found, noised = backwards(level, jnp.full((NUM, 1), 1 - shift))
    np.testing.assert_array_equal(found > 0, noised > 0)
    # Ten standard deviations of the data: nearly all are brought to a class.
    assert np.mean(np.abs(np.abs(found) - 1) < 10 * STD) > 0.98
    wanted = stats.norm.cdf((1 - shift) / level)
    error = np.sqrt(wanted * (1 - wanted) / NUM)
    assert abs(np.mean(found > 0) - wanted) < 4 * error


def test_from_little_noise_images_come_back_and_from_all_noise_others_come():
    x = 1 + STD * jax.random.normal(jax.random.key(4), (NUM, 1))
    found, _ = backwards(0.01, x)
    np.testing.assert_allclose(found, x, atol=5 * 0.01)
    found, _ = backwards(100.0, x)
    assert abs(np.mean(found > 0) - 0.5) < 4 * 0.5 / np.sqrt(NUM)


def test_a_flow_is_random_in_its_first_noise_alone():
    """With the same noised images the same images come back."""
    purifier = DiffPure(level=LEVEL, sampler=sampling.create('heun', steps=4))
    process, x = gaussian.correlated().process(SDE), images()
    moved = purifier.noised(KEYS, x) - purifier.noised(KEYS[::-1], x)
    found = purifier(KEYS, process, x).x
    other = purifier(KEYS[::-1], process, x + moved).x
    np.testing.assert_allclose(found, other, atol=1e-5)


def test_chains_go_back_from_a_level_that_they_know():
    """The network of a DDPM chain knows a thousand times; the nearest one is taken."""
    sde = sde_lib.create('ddpm')
    process, x = gaussian.correlated().process(sde), images()
    t = purifiers.time_of(sde, LEVEL)
    np.testing.assert_allclose(t * sde.num_scales, round(float(t) * sde.num_scales), rtol=1e-5)
    sampler = sampling.create('pc', predictor='ancestral', steps=5)
    purifier = DiffPure(level=LEVEL, sampler=sampler)
    found = jax.jit(lambda x: purifier(KEYS, process, x))(x)
    np.testing.assert_array_equal(found.nfe, 5)
    assert np.all(np.isfinite(found.x))


def test_loops_of_unknown_length_have_no_gradient():
    has_gradient = {
        name: DiffPure(sampler=sampling.create(name)).has_gradient for name in ('pc', 'heun', 'ode')
    }
    assert has_gradient == {'pc': True, 'heun': True, 'ode': False}

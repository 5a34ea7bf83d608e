"""Bounds against the likelihoods that they bound, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import bounds
import keys
import likelihood
import losses
import sde_lib
from parameterization import Process
from sde_lib import expand
from solvers.ode import ODESolver
from tests.support import mixture

KEY = jax.random.key(0)
SDES = [sde_lib.VP(), sde_lib.SubVP(), sde_lib.VE(), sde_lib.EDM(), sde_lib.CosineVP()]
WIDTH = 0.8  # of the bins of the toy's pixels, so wide that dequantisation costs much


def variational(process, x, **options):
    """The bound of each image."""
    run = jax.jit(lambda image_keys, x: bounds.variational(image_keys, process, x, **options))
    return run(keys.per_image(KEY, len(x)), x)


def normal(sde, std):
    """The process of N(0, std^2 I)."""

    def score(x, t):
        return -x / expand((sde.alpha(t) * std) ** 2 + sde.sigma(t) ** 2, x)

    return Process(sde, score)


@pytest.mark.parametrize('sde', SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize('late', [False, True])
def test_variational_bound_of_normal_data_is_that_of_the_formula(sde, late):
    """The entropy, the slack in the docstring of the module, and the prior's distance from p_T."""
    std, dim, num = 0.5, 4, 10_000
    t_min = float(sde.time_at_log_snr(jnp.float32(2.0))) if late else sde.t_min
    x = std * jax.random.normal(jax.random.key(1), (num, dim))
    found = variational(normal(sde, std), x, num_draws=64, t_min=t_min if late else None)
    exact = -stats.norm(0, std).logpdf(x).sum(axis=1)

    r = 1 / (std**2 * np.exp(sde.log_snr(jnp.float32(t_min))))
    slack = 0.5 * dim * (np.log1p(r) - r / (1 + r))
    T = jnp.float32(sde.T)
    ratio = ((sde.alpha(T) * std) ** 2 + sde.sigma(T) ** 2) / sde.prior_std**2
    gap = 0.5 * dim * (ratio - 1 - np.log(ratio))
    excess = found.bound - exact
    standard_error = excess.std(ddof=1) / np.sqrt(num)
    assert standard_error < 0.06
    assert abs(excess.mean() - (slack + gap)) < 4 * standard_error + 1e-4
    assert slack > 0.01 if late else slack < 0.01


def test_variational_bound_of_a_wrong_score_is_above_what_its_density_gives():
    """For N(0, s^2) and the score of N(0, r^2): the same times and noises, and a looser bound."""
    sde, x = sde_lib.VP(), 0.5 * jax.random.normal(jax.random.key(1), (10_000, 4))
    found, best = (variational(normal(sde, std), x, num_draws=64).bound for std in (0.8, 0.5))
    excess, loss = found + stats.norm(0, 0.8).logpdf(x).sum(axis=1), found - best
    assert excess.mean() > -3 * excess.std() / np.sqrt(len(x))
    assert loss.mean() > 4 * loss.std() / np.sqrt(len(x))


def test_variational_bound_of_a_mixture_is_near():
    sde, data = sde_lib.VP(), mixture.example(8)
    x = data.sample(jax.random.key(1), 4000)
    found = variational(data.process(sde), x, num_draws=32)
    excess = found.bound + data.log_prob(x, sde, jnp.float32(0.0))
    standard_error = excess.std(ddof=1) / np.sqrt(len(x))
    assert abs(excess.mean()) < 4 * standard_error < 0.5
    # The error that it states for one image is most of the scatter.
    stated = np.sqrt(np.mean(found.standard_error**2))
    assert 0.8 * excess.std() < stated < 1.2 * excess.std()


def test_cross_entropy_is_that_of_the_ode():
    """Of codes N(0, s^2) and their exact score: within errors of the mean, and of the draws."""
    sde, num = sde_lib.VP(), 512
    process, x = normal(sde, 0.5), 0.5 * jax.random.normal(jax.random.key(1), (num, 4))
    found = jax.jit(
        lambda x: bounds.cross_entropy(keys.per_image(KEY, num), process, x, num_draws=1024)
    )(x)
    by_ode = jax.jit(
        lambda x: likelihood.log_prob(
            keys.per_image(KEY, num), process, x, solver=ODESolver(), divergence='exact'
        )
    )(x)
    gap = found.bound + by_ode.log_prob
    standard_error = gap.std(ddof=1) / np.sqrt(num)
    assert abs(gap.mean()) < 4 * standard_error + 1e-3
    assert standard_error < 0.03
    # The errors that are stated for single images are the scatter.
    assert 0.8 < gap.std() / np.sqrt(np.mean(found.standard_error**2)) < 1.25


@pytest.mark.parametrize('sde', [*SDES, sde_lib.GeometricVP()], ids=lambda sde: type(sde).__name__)
def test_the_integral_of_the_normal_score_is_that_of_its_draws(sde):
    """Of codes that are not normal, within errors of at most half a percent."""
    codes = jnp.broadcast_to(jnp.array([0.5, -1.0, 2.0, 0.1]), (40_000, 4))
    t_min = max(sde.t_min, 1e-3)
    process = Process(sde, sde.normal_score)
    draws = losses.cross_entropy(process, KEY, codes, t_min=t_min)
    known = losses.normal_integral(sde, codes[:1], t_min)
    known += losses.noise_entropy(sde, t_min, codes)
    standard_error = draws.std(ddof=1) / np.sqrt(len(codes))
    assert standard_error < 5e-3 * losses.normal_integral(sde, codes[:1], t_min)[0]
    assert abs(draws.mean() - known[0]) < 4 * standard_error


def test_bounds_depend_on_the_image_and_its_key_alone():
    process, x = normal(sde_lib.VP(), 0.5), 0.5 * jax.random.normal(jax.random.key(1), (3, 2))
    together = variational(process, x, num_draws=4).bound
    alone = bounds.variational(keys.per_image(KEY, 3)[2:], process, x[2:], num_draws=4)
    np.testing.assert_allclose(alone.bound[0], together[2], rtol=1e-5)


# Importance weighting: pixels of two dimensions, of which the exact probability is known.


def toy(num, num_draws):
    """Log-densities [num, draws] of dequantised pixels, the pixels' exact log-probabilities."""
    rng = np.random.default_rng(0)
    means, std = np.array([[-0.6, 0.2], [0.5, -0.4]]), 0.25
    x = means[rng.integers(0, 2, num)] + std * rng.normal(size=(num, 2))
    low = np.floor(x / WIDTH) * WIDTH
    u = low[:, None] + WIDTH * rng.uniform(size=(num, num_draws, 2))
    parts = stats.norm(means[:, None, None], std)
    log_density = np.logaddexp.reduce(parts.logpdf(u).sum(-1)) - np.log(2)
    mass = stats.norm(means[:, None], std)
    exact = np.log((mass.cdf(low + WIDTH) - mass.cdf(low)).prod(-1).mean(0))
    return log_density + 2 * np.log(WIDTH), exact


def test_importance_weighted_bound_tightens_and_stays_below_the_probability():
    log_probs, exact = toy(10_000, 32)
    bits = []
    for num_draws in (1, 2, 8, 32):
        found = bounds.importance_weighted(jnp.asarray(log_probs[:, :num_draws, None]))
        bits.append(-np.asarray(found, np.float64) / 2 / np.log(2))
    truth = -exact / 2 / np.log(2)
    for loose, tight in zip(bits, [*bits[1:], truth], strict=True):
        fall = loose - tight
        assert fall.mean() > 4 * fall.std() / np.sqrt(len(fall))
    assert (bits[0] - truth).mean() > 10 * (bits[-1] - truth).mean()


@pytest.mark.parametrize('noise', [0.3, 3.0])
def test_importance_weighted_bound_is_one_for_noisy_log_probs_too(noise):
    log_probs, exact = toy(4000, 8)
    probes = np.random.default_rng(1).normal(scale=noise, size=(*log_probs.shape, 4))
    found = bounds.importance_weighted(jnp.asarray(log_probs[..., None] + probes))
    naive = np.logaddexp.reduce(log_probs + probes.mean(-1), axis=1) - np.log(8)
    slack = exact - np.asarray(found)
    standard_error = slack.std() / np.sqrt(len(slack))
    assert slack.mean() > 4 * standard_error
    assert (exact - log_probs.mean(axis=1) + np.log(8) - slack).mean() > -4 * standard_error
    if noise > 1:
        # The logarithm of the mean of noisy densities is no bound.
        assert (exact - naive).mean() < -4 * standard_error


def test_importance_weighting_of_equal_draws_is_their_mean():
    log_probs = jnp.broadcast_to(jnp.array([[[1.0, 2.0, 6.0]]]), (1, 5, 3))
    np.testing.assert_allclose(bounds.importance_weighted(log_probs), [3.0], rtol=1e-6)


@pytest.mark.parametrize('sde', SDES, ids=lambda sde: type(sde).__name__)
def test_prior_divergence_is_that_of_two_normals(sde):
    x0 = jnp.array([[0.3, -0.8], [0.0, 0.0]])
    T = jnp.float32(sde.T)
    mean, std = np.float64(sde.alpha(T)) * x0, np.float64(sde.sigma(T))
    prior = np.float64(sde.prior_std)
    expected = (
        np.log(prior / std) + (std**2 + np.asarray(mean, np.float64) ** 2) / (2 * prior**2) - 0.5
    ).sum(axis=1)
    # A float's sigma near 1 is known to 6e-8.
    np.testing.assert_allclose(bounds.prior_divergence(sde, x0), expected, rtol=1e-4, atol=1e-7)

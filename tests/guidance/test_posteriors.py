"""Conditional generation where posteriors are known: Gaussians, and mixtures with exact classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import sde_lib
from datasets.mixtures import Mixture
from guidance import class_guidance, measurements, posteriors
from sampling import GridSampler, ProbabilityFlow
from solvers.grid_solver import GridSolver, PredictorCorrector, Step
from solvers.grids import TimeGrid
from solvers.ode import ODESolver
from solvers.predictors import Ancestral
from solvers.sampler import noise_source
from tests.support import gaussian, mixture
from tests.support.gaussian import SHAPE

VP = sde_lib.VP()
NUM = 4000
KEYS = keys.per_image(jax.random.key(0), NUM)
MEASUREMENTS = {
    'one_pixel': measurements.known_pixels(np.array([[True, False], [False, False]]), 1),
    'block_mean': measurements.block_mean(2, 2, 2),
    'matrix': measurements.matrix(np.array([[1.0, 0.5, 0, 0], [0, -1, 2, 0.3]]), SHAPE),
}
ONE_PIXEL = MEASUREMENTS['one_pixel']
Y = jnp.full((NUM, 1, 1), 0.8)


def noise_of(i, num=NUM):
    """The noise of projections, with keys of their own."""
    return noise_source(keys.per_image(jax.random.key(1), num), SHAPE, 1.0)(i)


def by_ode(process, shape):
    """Samples without errors of discretisation."""
    sampler = ProbabilityFlow(ODESolver(rtol=1e-4, atol=1e-4), t_min=1e-4, denoise=False)
    return jax.jit(lambda: sampler(KEYS, process, shape).x)()


def on_grid(solver, process, steps=400, t_min=1e-3, **options):
    """Samples by a solver on a uniform grid."""
    sampler = GridSampler(solver, grid=TimeGrid(steps), t_min=t_min, **options)
    return jax.jit(lambda: sampler(KEYS, process, SHAPE).x)()


def assert_moments(x, mean, covariance):
    """Within four standard errors, of means and of covariances of Gaussians."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    variances = np.diag(covariance)
    mean_error = np.sqrt(variances / len(x))
    covariance_error = np.sqrt((np.outer(variances, variances) + covariance**2) / len(x))
    assert (np.abs(x.mean(0) - mean) <= 4 * mean_error + 2e-3).all(), x.mean(0) - mean
    difference = np.abs(np.cov(x.T) - covariance)
    assert (difference <= 4 * covariance_error + 2e-3).all(), difference


# Classes


def log_component(mix, sde, k):
    """log p(component k | x_t) of a mixture."""
    parts = [Mixture(mean[None], mix.std) for mean in mix.means]

    def log_prob(x, t):
        log_probs = jnp.stack([part.log_prob(x, sde, t[0]) for part in parts], axis=1)
        return jax.nn.log_softmax(log_probs, axis=1)[:, k]

    return log_prob


@pytest.mark.parametrize('k', [0, 2])
def test_an_exact_classifier_gives_its_class(k):
    mix = mixture.example()
    guided = class_guidance.classifier_guidance(mix.process(VP), log_component(mix, VP, k))
    assert_moments(by_ode(guided, (2,)), mix.means[k], mix.std**2 * np.eye(2))


@pytest.mark.parametrize('sde', [VP, sde_lib.VE()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize('scale', [1.0, 3.0])
def test_guidance_with_and_without_a_classifier_agree(sde, scale):
    """By Bayes' rule, at every scale, if both are exact."""
    mix = mixture.example()
    part = Mixture(mix.means[1][None], mix.std).process(sde)
    marginal = mix.process(sde)
    free = class_guidance.classifier_free_guidance(part, marginal, scale)
    guided = class_guidance.classifier_guidance(marginal, log_component(mix, sde, 1), scale)
    x = jax.random.normal(jax.random.key(0), (16, 2))
    for t in (0.1, 0.5, 0.9):
        t = jnp.full(16, t)
        np.testing.assert_allclose(free.score(x, t), guided.score(x, t), rtol=2e-4, atol=2e-4)


# Measurements of Gaussian data


@pytest.mark.parametrize('noise_std', [0.0, 0.3])
@pytest.mark.parametrize('name', MEASUREMENTS)
@pytest.mark.parametrize('sde', [VP, sde_lib.VE()], ids=lambda s: type(s).__name__)
def test_pseudo_inverse_guidance_is_exact_for_equal_variances(sde, name, noise_std):
    """Its score is that of the posterior under noise, at every time."""
    data, a = gaussian.isotropic(), MEASUREMENTS[name]
    x = jax.random.normal(jax.random.key(0), (8, *SHAPE))
    y = a.measure(jax.random.normal(jax.random.key(1), (1, *SHAPE)))
    guided = posteriors.pseudo_inverse_guidance(
        data.process(sde), a, y, noise_std=noise_std, data_std=0.5
    )
    mean, covariance = data.posterior(gaussian.dense(a), np.asarray(y).ravel(), noise_std)
    posterior = gaussian.Gaussian(mean, covariance).process(sde)
    for t in (0.05, 0.4, 0.9):
        t = jnp.full(8, t)
        truth = posterior.score(x, t)
        np.testing.assert_allclose(guided.score(x, t), truth, atol=2e-4 * np.abs(truth).max())


def test_pseudo_inverse_guidance_samples_the_posterior():
    data = gaussian.isotropic()
    # The solver of the ODE sees one image at a time.
    guided = posteriors.pseudo_inverse_guidance(
        data.process(VP), ONE_PIXEL, Y[:1], noise_std=0.3, data_std=0.5
    )
    a = gaussian.dense(ONE_PIXEL)
    assert_moments(by_ode(guided, SHAPE), *data.posterior(a, np.array([0.8]), 0.3))


def sampler_of(method, data):
    """Process and solver by which a method conditions on the first pixel, Y without noise."""
    solver, process = PredictorCorrector(Ancestral()), data.process(VP)
    if method == 'projection':
        return process, posteriors.Projected(solver, ONE_PIXEL, Y, noise_of)
    if method == 'dps':
        return process, posteriors.PosteriorSampling(solver, ONE_PIXEL, Y, 1.0)
    guided = posteriors.pseudo_inverse_guidance(process, ONE_PIXEL, Y, noise_std=0.0, data_std=0.5)
    return guided, solver


@pytest.mark.parametrize(
    ('method', 'mean_error', 'std_ratio'),
    [('projection', -0.41, 1.18), ('dps', 0.22, 0.95), ('pigdm', -0.08, 1.01)],
)
def test_the_bias_of_each_method_is_as_documented(method, mean_error, std_ratio):
    """On correlated pixels, of the neighbour of the known one; docs/conditional.md has the table.

    The error of the mean is in units of the shift that the measurement brings.
    """
    data = gaussian.correlated()
    process, solver = sampler_of(method, data)
    x = posteriors.match(ONE_PIXEL, Y, on_grid(solver, process)).reshape(NUM, -1)
    mean, covariance = data.posterior(gaussian.dense(ONE_PIXEL), np.array([0.8]), 0.0)
    error = (x[:, 1].mean() - mean[1]) / (mean[1] - data.mean[1])
    # Three standard errors of the one, four of the other.
    assert abs(error - mean_error) < 0.04
    assert abs(x[:, 1].std() / covariance[1, 1] ** 0.5 - std_ratio) < 0.04


# What the published inpainting and colourisation get wrong


class Still(GridSolver):
    """A solver whose steps lead nowhere."""

    stochastic = True

    def step(self, process, draw, x, i, times, memory):
        return Step(x, x), memory


def test_known_pixels_start_with_noise():
    process = gaussian.correlated().process(VP)
    start = on_grid(Still(), process, steps=1)
    x = on_grid(posteriors.Projected(Still(), ONE_PIXEL, Y, noise_of), process, steps=1)
    t = jnp.ones(())
    np.testing.assert_array_equal(x.reshape(NUM, 4)[:, 1:], start.reshape(NUM, 4)[:, 1:])
    assert_moments(x[:, 0, 0], VP.alpha(t) * 0.8, VP.sigma(t)[None, None] ** 2)


def test_the_last_step_denoises_what_is_unknown():
    """Without noise and with it, the last states differ by the noise of the last step."""
    data = gaussian.correlated()
    process, solver = sampler_of('projection', data)
    coarse = {'steps': 5, 't_min': 0.1}
    clean = on_grid(solver, process, denoise=True, **coarse)
    noisy = on_grid(solver, process, denoise=False, **coarse)
    added = (noisy - clean).reshape(NUM, 4)[:, 1:]
    t, s = jnp.float32(0.28), jnp.float32(0.1)
    alpha_ts, sigma_ts = VP.transition(s, t)
    lost = (sigma_ts / VP.sigma(t)) ** 2
    std = float(sigma_ts * jnp.sqrt(1 - lost) / alpha_ts)
    assert_moments(added, np.zeros(3), std**2 * np.eye(3))


@pytest.mark.parametrize('name', ['known_pixels', 'grey', 'block_mean'])
def test_what_is_measured_comes_back_exactly(name):
    """Known pixels to the bit, means to the last digits of a float."""
    mask = np.arange(64).reshape(8, 8) % 3 == 0
    a = {
        'known_pixels': measurements.known_pixels(mask, 3),
        'grey': measurements.grey(),
        'block_mean': measurements.block_mean(8, 8, 4),
    }[name]
    original, other = jax.random.uniform(jax.random.key(3), (2, 4, 8, 8, 3), minval=-1)
    y = a.measure(original)
    matched = posteriors.match(a, y, other)
    np.testing.assert_allclose(a.measure(matched), y, atol=1e-6)
    # Nothing else is changed: the difference is in the range of A^T.
    rest = matched - other
    np.testing.assert_allclose(a.pseudo_inverse(a.measure(rest)), rest, atol=1e-6)

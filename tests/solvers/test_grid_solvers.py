"""Few-step solvers: measured orders, transcriptions of the papers, and draws from the mixture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

import keys
import sampling
import sde_lib
from choices import ArgumentError
from parameterization import Process
from sampling import GridSampler
from solvers import dpm_solver, exponential, grids, karras, unipc
from solvers.grid_solver import PredictorCorrector
from solvers.grids import TimeGrid
from solvers.predictors import DDIM
from tests.support import mixture
from tests.test_sampling import assert_is_distributed_as

SOLVERS = {**karras.SOLVERS, **dpm_solver.SOLVERS, **unipc.SOLVERS}


def on_grid(solver, steps, spacing='log_snr', t_min=1e-2, **fields):
    """A sampler by a solver on a grid."""
    return GridSampler(solver, grid=TimeGrid(steps, spacing), t_min=t_min, **fields)


def draw(sampler, process, num, dim=2):
    """Samples of one compiled program."""
    image_keys = keys.per_image(jax.random.key(0), num)
    return jax.jit(lambda image_keys: sampler(image_keys, process, (dim,)))(image_keys)


# Orders


@functools.cache
def latents_and_solutions(sde, t_min):
    """States at T, and where the probability flow takes them by t_min: by scipy, in float64."""
    score = mixture.example().score_fn(sde)
    latents = sde.prior_std * np.random.default_rng(0).standard_normal((32, 2))

    @jax.jit
    def velocity(log_snr, x):
        t = sde.time_at_log_snr(log_snr)
        x, times = x.reshape(32, 2), jnp.full(32, t)
        rate = -((sde.sigma(t) / sde.diffusion(t)) ** 2)
        return rate * sde.probability_flow(x, times, score(x, times)).ravel()

    ends = np.asarray(sde.log_snr(jnp.array([sde.T, t_min])))
    solution = integrate.solve_ivp(
        velocity, ends, latents.ravel(), method='DOP853', rtol=1e-11, atol=1e-12
    )
    return latents, solution.y[:, -1].reshape(32, 2)


@pytest.mark.parametrize('sde', [sde_lib.VP(), sde_lib.VE()], ids=['vp', 've'])
@pytest.mark.parametrize(
    ('solver', 'order', 'steps'),
    [
        (PredictorCorrector(DDIM()), 1, 128),
        (karras.Euler(), 1, 128),
        (karras.Heun(), 2, 64),
        (dpm_solver.DPMpp2S(), 2, 128),
        (dpm_solver.DPMpp2M(), 2, 128),
        (dpm_solver.DPMpp3M(), 3, 128),
        # Of p points, the corrector makes p + 1.
        (unipc.UniPC(2), 3, 128),
        (unipc.UniPC(3), 4, 512),
    ],
    ids=['ddim', 'euler', 'heun', 'dpmpp_2s', 'dpmpp_2m', 'dpmpp_3m', 'unipc_2', 'unipc_3'],
)
def test_errors_fall_with_the_order_of_the_solver(solver, order, steps, sde):
    """The steps of a `GridSampler`, compiled once for both grids."""
    with jax.enable_x64(True):
        process = mixture.example().process(sde)
        latents, solutions = latents_and_solutions(sde, 1e-2)

        @jax.jit
        def step(x, i, times, memory):
            no_noise = functools.partial(jnp.zeros_like, x)
            state, memory = solver.step(process, lambda j: no_noise(), x, i, times, memory)
            return state.x, memory

        def error(n):
            times = grids.log_snr_grid(sde, n, sde.T, 1e-2)
            x = jnp.asarray(latents)
            memory = solver.init(process, x, times)
            padded = jnp.concatenate([times, jnp.full(2 * steps - n, times[-1])])
            for i in range(n):
                x, memory = step(x, jnp.asarray(i), padded, memory)
            return np.sqrt(np.mean((x - solutions) ** 2))

        assert abs(np.log2(error(steps) / error(2 * steps)) - order) < 0.25


@pytest.mark.parametrize('eta', [1.0, 0.5])
def test_the_variance_of_2m_sde_has_order_two(eta):
    """On Gaussian data steps are linear: variances follow from each other without a draw."""
    with jax.enable_x64(True):
        sde, solver = sde_lib.VP(), dpm_solver.DPMpp2MSDE(eta)

        def variance(t):
            return (0.3 * sde.alpha(t)) ** 2 + sde.sigma(t) ** 2

        process = Process(sde, lambda x, t: -x / variance(t)[:, None])
        # The state, the data prediction before, the noise.
        x, before, noise = jnp.eye(3)[:, :, None]

        @jax.jit
        def matrix(i, times):
            point = exponential.Point(exponential.half_log_snr(sde, times[i - 1]), before)
            state, [now] = solver.step(process, lambda j: noise, x, i, times, [point])
            return jnp.stack([state.x[:, 0], now.denoised[:, 0]])

        def error(n):
            times = grids.log_snr_grid(sde, n, sde.T, 1e-2)
            padded = jnp.concatenate([times, jnp.full(128 - n, times[-1])])
            covariance = np.diag([float(variance(times[0])), 0.0, 1.0])
            for i in range(n):
                step = np.asarray(matrix(jnp.asarray(i), padded))
                covariance[:2, :2] = step @ covariance @ step.T
            return abs(covariance[0, 0] - variance(times[-1]))

        assert abs(np.log2(error(64) / error(128)) - 2) < 0.25


# Transcriptions


def numpy_denoiser(s):
    """That of one Gaussian, N(0.4, 0.5^2), under noise of standard deviation `s`."""
    return lambda y: (0.25 * y + 0.4 * s**2) / (0.25 + s**2)


def gaussian(sde):
    """The process of the same."""

    def score(x, t):
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        return (0.4 * alpha - x) / ((0.5 * alpha) ** 2 + sigma**2)

    return Process(sde, score)


def test_churned_heun_is_algorithm_2_of_karras_et_al():
    """Line by line, on their noise levels; its last step is the final denoising."""
    sde, n = sde_lib.EDM(), 12
    churn, low, high, noise_scale = 8.0, 0.05, 50.0, 1.003
    solver = karras.Heun(churn, low, high, noise_scale)
    found = draw(on_grid(solver, n - 1, 'karras', t_min=None), gaussian(sde), 5)
    assert (found.nfe == 2 * n - 1).all()

    image_keys = keys.per_image(jax.random.key(0), 5)
    levels = (80 ** (1 / 7) + np.arange(n) / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    levels = np.append(levels, 0.0)
    x = levels[0] * np.asarray(keys.normal(image_keys, 0, (2,)), np.float64)
    for i in range(n):
        gamma = min(churn / n, np.sqrt(2) - 1) if low <= levels[i] <= high else 0.0
        epsilon = noise_scale * np.asarray(keys.normal(image_keys, 1 + 2 * i, (2,)))
        raised = levels[i] + gamma * levels[i]
        x_hat = x + np.sqrt(raised**2 - levels[i] ** 2) * epsilon
        d = (x_hat - numpy_denoiser(raised)(x_hat)) / raised
        x = x_hat + (levels[i + 1] - raised) * d
        if levels[i + 1] != 0:
            d_next = (x - numpy_denoiser(levels[i + 1])(x)) / levels[i + 1]
            x = x_hat + (levels[i + 1] - raised) * (0.5 * d + 0.5 * d_next)
    np.testing.assert_allclose(found.x, x, rtol=1e-4, atol=1e-4)


def dpmpp_2m_of_the_paper(x, s, denoise):
    """Algorithm 2, with alpha = 1."""
    lambdas, before = -np.log(s), None
    for i in range(1, len(s)):
        h = lambdas[i] - lambdas[i - 1]
        now = denoise(s[i - 1])(x)
        d = now
        if i > 1:
            r = (lambdas[i - 1] - lambdas[i - 2]) / h
            d = (1 + 1 / (2 * r)) * now - 1 / (2 * r) * before
        x = s[i] / s[i - 1] * x - np.expm1(-h) * d
        before = now
    return x


def unipc_of_the_paper(order, x, s, denoise):
    """Algorithms 3 and 4 in data prediction, with alpha = 1 and B(h) = exp(h) - 1."""
    lambdas = -np.log(s)
    outputs = [denoise(s[0])(x)]
    for i in range(1, len(s)):
        p = min(order, i)
        h = lambdas[i] - lambdas[i - 1]
        r = np.array([(lambdas[i - m] - lambdas[i - 1]) / h for m in range(2, p + 1)] + [1.0])
        differences = [(outputs[i - m] - outputs[i - 1]) / r[m - 2] for m in range(2, p + 1)]
        b = np.expm1(-h)
        # phi_{k + 1}(-h) k! h / B(h), by the recursion of phi.
        phi, sides = b / -h - 1, []
        factorial = 1.0
        for k in range(1, p + 1):
            sides.append(phi * factorial / b)
            factorial *= k + 1
            phi = phi / -h - 1 / factorial

        def weights(q, r=r, sides=sides):
            matrix = np.stack([r[:q] ** k for k in range(q)])
            return np.array([0.5]) if q == 1 else np.linalg.solve(matrix, np.array(sides[:q]))

        base = s[i] / s[i - 1] * x - b * outputs[i - 1]
        predicted = base
        if p > 1:
            predicted = base - b * sum(
                w * d for w, d in zip(weights(p - 1), differences, strict=True)
            )
        if i == len(s) - 1:
            return predicted
        outputs.append(denoise(s[i])(predicted))
        differences.append(outputs[i] - outputs[i - 1])
        x = base - b * sum(w * d for w, d in zip(weights(p), differences, strict=True))
    return x


@pytest.mark.parametrize(
    ('name', 'published'),
    [
        ('dpmpp_2m', dpmpp_2m_of_the_paper),
        ('unipc_2', functools.partial(unipc_of_the_paper, 2)),
        ('unipc_3', functools.partial(unipc_of_the_paper, 3)),
    ],
)
def test_multistep_solvers_are_those_of_the_papers(name, published):
    with jax.enable_x64(True):
        sde = sde_lib.EDM()
        sampler = on_grid(SOLVERS[name](), 9, 'karras', t_min=None, denoise=False)
        found = draw(sampler, gaussian(sde), 5)
        times = np.asarray(sampler.grid.times(sde, sde.t_min))
        latents = 80 * keys.normal(keys.per_image(jax.random.key(0), 5), 0, (2,))
        np.testing.assert_allclose(
            found.x, published(np.asarray(latents), times, numpy_denoiser), rtol=1e-9, atol=1e-9
        )


# Weights


@pytest.mark.parametrize('total', [1e-3, 0.05, 0.9, 1.1, 4.0, 30.0])
def test_moments_are_their_integrals_in_float32(total):
    found = exponential._moments(jnp.float32(total), 4)
    for k in range(4):
        exact, _ = integrate.quad(
            lambda v, k=k: total * np.exp(-total * (1 - v)) * v**k, 0, 1, epsabs=0, limit=200
        )
        np.testing.assert_allclose(found[k], exact, rtol=3e-6)


@pytest.mark.parametrize('num', [1, 3, 4])
def test_polynomials_of_as_many_points_are_integrated_exactly(num):
    """Points that are left out do not count, wherever they are."""
    nodes, total = [0.0, 1.0, -0.7, -1.6], 1.3
    polynomial = np.polynomial.Polynomial([0.3, -1.0, 0.5, 0.25][:num])
    values = [polynomial(node) if j < num else 1e3 for j, node in enumerate(nodes)]
    points = [jnp.asarray(node) for node in nodes], [jnp.asarray([value]) for value in values]
    exact, _ = integrate.quad(
        lambda v: total * np.exp(-total * (1 - v)) * polynomial(v), 0, 1, epsabs=0
    )
    found = exponential.weighted_mean(jnp.asarray(total), *points, jnp.asarray(num))
    np.testing.assert_allclose(found, [exact], rtol=1e-5)


@pytest.mark.parametrize('name', ['cosine', 've'])
def test_data_that_are_a_single_point_are_found_in_one_step(name):
    """D is constant, and so is the slope of Euler's method."""
    sde = sde_lib.create(name)

    def score(x, t):
        return (0.3 * sde.alpha(t)[:, None] - x) / sde.sigma(t)[:, None] ** 2

    times = jnp.array([sde.T, 0.01])
    image_keys = keys.per_image(jax.random.key(0), 4)
    latents = sde.prior_std * keys.normal(image_keys, 0, (2,))
    # The noise that is left is that of the latent, smaller.
    noise = (latents - 0.3 * sde.alpha(times[0])) / sde.sigma(times[0])
    exact = 0.3 * sde.alpha(times[1]) + sde.sigma(times[1]) * noise
    for solver in (karras.Euler(), dpm_solver.DPMpp2S(), unipc.UniPC(3)):
        sampler = on_grid(solver, 1, denoise=False)
        found = sampler(image_keys, Process(sde, score), (2,))
        # Float32 of x / alpha, which is a few thousand at T.
        np.testing.assert_allclose(found.x, exact, atol=1e-3)


@pytest.mark.parametrize('name', ['dpmpp_2m_sde', 'dpmpp_3m', 'unipc_3'])
def test_a_step_to_the_data_is_the_denoiser(name):
    """In log signal-to-noise ratio it is infinitely long: history does not count."""
    process = mixture.example().process(sde_lib.SMLD())
    sampler = on_grid(SOLVERS[name](), 6, 'uniform', t_min=0.0, denoise=False, trajectory=True)
    drawn = draw(sampler, process, 4)
    before = drawn.trajectory[-2]
    if name.startswith('unipc'):  # The state before is corrected first.
        assert np.isfinite(drawn.x).all()
        return
    t = jnp.full(4, drawn.times[-2])
    np.testing.assert_allclose(drawn.x, process.denoise(before, t), rtol=1e-4, atol=1e-5)


def test_long_steps_are_of_order_one():
    """The last of 20 uniform steps of VP is eight times longer in log signal-to-noise ratio."""
    sde = sde_lib.VP()
    sampler = on_grid(dpm_solver.DPMpp3M(), 20, 'uniform', t_min=1e-5, denoise=False)
    process, times = mixture.example().process(sde), sampler.grid.times(sde, 1e-5)
    trusted = [int(exponential.num_trusted(sde, jnp.asarray(i), times)) for i in (0, 1, 19)]
    assert trusted == [1, 2, 1]
    exact = draw(on_grid(dpm_solver.DPMpp2M(), 1000, t_min=1e-5), process, 64).x
    error = np.sqrt(np.mean((draw(sampler, process, 64).x - exact) ** 2))
    assert error < 0.1  # 0.05; with three points throughout it is 2.7.


# Draws


@pytest.mark.parametrize(
    ('sde', 'solver', 'steps'),
    [
        (sde_lib.VP(), karras.Heun(churn=10.0), 30),
        (sde_lib.VE(), dpm_solver.DPMpp2MSDE(), 40),
        (sde_lib.DDPM(), karras.Heun(churn=10.0), 40),
        (sde_lib.DDPM(), dpm_solver.DPMpp3M(), 30),
        (sde_lib.SMLD(), dpm_solver.DPMpp2S(), 30),
        (sde_lib.SMLD(), unipc.UniPC(2), 30),
    ],
)
def test_solvers_draw_from_the_mixture(sde, solver, steps):
    """On chains with a score that knows the levels alone."""
    data = mixture.example()
    exact = data.process(sde)
    known = exact.with_score(lambda x, t: exact.score(x, grids.known(sde, t)))
    spacing = 'log_snr' if isinstance(sde, sde_lib.SMLD) else 'karras'
    drawn = draw(on_grid(solver, steps, spacing, t_min=1e-3), known, 4000)
    assert_is_distributed_as(drawn.x, data)


def test_chains_are_asked_at_their_levels_only():
    sde, asked = sde_lib.DDPM(num_scales=50), []
    process = mixture.example().process(sde)

    def score(x, t):
        t = jax.pure_callback(lambda t: (asked.append(float(t[0])), t)[1], t, t)
        return process.score(x, t)

    for solver in (karras.Heun(churn=5.0), dpm_solver.DPMpp2S()):
        jax.block_until_ready(draw(on_grid(solver, 20, t_min=None), process.with_score(score), 1))
    levels = np.array(asked) * 50
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert levels.min() > 0.5
    assert levels.max() < 50.5


# Churn


def test_churn_adds_noise_of_each_image_alone_and_no_evaluations():
    process, grid = mixture.example().process(sde_lib.VP()), {'steps': 8, 't_min': 1e-2}
    churned, plain = sampling.create('heun', churn=4.0, **grid), sampling.create('heun', **grid)
    together, without = draw(churned, process, 4), draw(plain, process, 4)
    np.testing.assert_array_equal(together.nfe, without.nfe)
    assert np.abs(together.x - without.x).max(axis=1).min() > 1e-2
    alone = churned(keys.of_images(jax.random.key(0), jnp.array([2])), process, (2,))
    np.testing.assert_allclose(alone.x[0], together.x[2], atol=1e-5)


def test_churn_has_a_range_of_levels():
    with pytest.raises(ArgumentError, match='^churn_max: 1.0 is below churn_min, 2.0'):
        karras.Heun(churn_min=2.0, churn_max=1.0)


def test_methods_are_named_as_their_solvers():
    assert set(SOLVERS) | {'pc', 'ode'} <= set(sampling.METHODS)

"""SDEs against float64 formulas, their own derivatives, simulation, and the published code."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from choices import ArgumentError
from tests.support import golden

SDES = [cls() for cls in sde_lib.SDES.values()]
CONTINUOUS = [sde for sde in SDES if not isinstance(sde, sde_lib.Chain)]
CHAINS = [sde_lib.DDPM(num_scales=1000), sde_lib.SMLD(num_scales=1000)]


def name_of(sde):
    return type(sde).__name__


# Coefficients


def reference(sde, t):
    """(alpha, sigma, f, g) at times t in float64, from the formulas of the papers."""
    t = np.asarray(t, np.float64)
    zero, one = np.zeros_like(t), np.ones_like(t)
    match sde:
        case sde_lib.SubVP() | sde_lib.VP():
            beta = sde.beta_min + t * (sde.beta_max - sde.beta_min)
            integral = sde.beta_min * t + 0.5 * t**2 * (sde.beta_max - sde.beta_min)
            kept = np.exp(-integral)
            if isinstance(sde, sde_lib.SubVP):
                sigma, g = 1 - kept, np.sqrt(beta * (1 - kept**2))
            else:
                sigma, g = np.sqrt(1 - kept), np.sqrt(beta)
            return np.sqrt(kept), sigma, -0.5 * beta, g
        case sde_lib.VE():
            ratio = sde.sigma_max / sde.sigma_min
            sigma = sde.sigma_min * ratio**t
            return one, sigma, zero, sigma * np.sqrt(2 * np.log(ratio))
        case sde_lib.EDM():
            return one, t, zero, np.sqrt(2 * t)
        case sde_lib.CosineVP():
            first = np.arctan(np.exp(-0.5 * sde.log_snr_max))
            last = np.arctan(np.exp(-0.5 * sde.log_snr_min))
            theta, rate = first + t * (last - first), last - first
            g = np.sqrt(2 * rate * np.tan(theta))
            return np.cos(theta), np.sin(theta), -rate * np.tan(theta), g
        case sde_lib.GeometricVP():
            low, high = sde.sigma_min**2, sde.sigma_max**2
            variance = low * (high / low) ** t
            g2 = variance * np.log(high / low) / (1 - variance)
            return np.sqrt((1 - variance) / (1 - low)), np.sqrt(variance), -0.5 * g2, np.sqrt(g2)
        case sde_lib.FlowMatching():
            return 1 - t, t, -1 / (1 - t), np.sqrt(2 * t / (1 - t))


def times(sde):
    """Times from 1e-5 (or the SDE's own first) to T, in float32."""
    t = np.concatenate(
        [np.geomspace(max(1e-5, sde.t_min), sde.T, 500), np.linspace(sde.t_min, sde.T, 500)]
    )
    return jnp.clip(jnp.asarray(t, jnp.float32), None, sde.T)


@pytest.mark.parametrize('sde', CONTINUOUS, ids=name_of)
def test_coefficients_are_those_of_the_papers_to_1e_5_at_all_times(sde):
    t = times(sde)
    ours = sde.alpha(t), sde.sigma(t), sde.f(t), sde.diffusion(t)
    for found, expected in zip(ours, reference(sde, t), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('sde', CONTINUOUS, ids=name_of)
def test_log_snr_agrees_with_the_reference(sde):
    t = times(sde)
    alpha, sigma, _, _ = reference(sde, t)
    # lambda crosses zero: 1e-5 of its range of about 10.
    np.testing.assert_allclose(sde.log_snr(t), 2 * np.log(alpha / sigma), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('sde', SDES, ids=name_of)
def test_noise_accumulates_as_the_log_snr_falls(sde):
    t = interior_times(sde)
    fall = -jax.vmap(jax.grad(sde.log_snr))(t)
    np.testing.assert_allclose((sde.diffusion(t) / sde.sigma(t)) ** 2, fall, rtol=1e-4)


@pytest.mark.parametrize('sde', SDES, ids=name_of)
def test_the_drift_is_the_logarithmic_derivative_of_alpha(sde):
    t = interior_times(sde)
    np.testing.assert_allclose(jax.vmap(jax.grad(sde.log_alpha))(t), sde.f(t), rtol=1e-4, atol=1e-6)


def interior_times(sde):
    """Away from the ends, and from the kinks of chains at their levels."""
    t = sde.t_min + (sde.T - sde.t_min) * jnp.linspace(0.01, 0.99, 57)
    return (jnp.floor(t * 1000) + 0.37) / 1000 if isinstance(sde, sde_lib.Chain) else t


@pytest.mark.parametrize('sde', SDES, ids=name_of)
def test_time_at_log_snr_inverts_log_snr(sde):
    t = times(sde)
    # lambda has an error of a few float32 ulps, which costs t that much over |d lambda / dt|.
    atol = 4e-6 / np.abs(jax.vmap(jax.grad(sde.log_snr))(interior_times(sde))).min()
    if isinstance(sde, sde_lib.Chain):
        atol = 1.1e-3 / sde.num_scales  # Times so close to a level are that level.
    np.testing.assert_allclose(sde.time_at_log_snr(sde.log_snr(t)), t, rtol=1e-5, atol=atol)


@pytest.mark.parametrize('sde', CONTINUOUS, ids=name_of)
def test_time_at_log_snr_is_exact_in_float64(sde):
    with jax.enable_x64(True):
        t = sde.t_min + jnp.linspace(0.001, 0.999, 99, dtype=jnp.float64) * (sde.T - sde.t_min)
        found = sde.time_at_log_snr(sde.log_snr(t))
    np.testing.assert_allclose(found, t, rtol=1e-9)


@pytest.mark.parametrize('sde', CONTINUOUS, ids=name_of)
def test_the_kernel_solves_the_equations_of_its_moments(sde):
    """By quadrature in float64: d log(alpha) = f dt, and from d(sigma^2) = (2 f sigma^2 + g^2) dt
    follows d(sigma^2 / alpha^2) = g^2 / alpha^2 dt.
    """
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = np.linspace(0.02, 0.98, 9) * sde.T
    with jax.enable_x64(True):
        half = 0.5 * np.diff(edges)[:, None]
        t = jnp.asarray(edges[:-1, None] + half * (1 + nodes))
        edges = jnp.asarray(edges)
        rates = sde.f(t), (sde.diffusion(t) / sde.alpha(t)) ** 2
        kernel = sde.log_alpha(edges), jnp.exp(-sde.log_snr(edges))
        for rate, moment in zip(rates, kernel, strict=True):
            gained = (half * weights * rate).sum(axis=1)
            np.testing.assert_allclose(gained, np.diff(moment), rtol=1e-9)


@pytest.mark.parametrize('sde', SDES, ids=name_of)
def test_normal_data_have_the_normal_score(sde):
    t = interior_times(sde)
    x = jax.random.normal(jax.random.key(0), (len(t), 3))
    total = sde.alpha(t) ** 2 + sde.sigma(t) ** 2
    np.testing.assert_allclose(sde.normal_score(x, t), -x / total[:, None], rtol=1e-6)


def test_the_ode_of_normal_data_stands_exactly_still():
    """Of VP, and to rounding of the other that keeps their variance."""
    t = times(sde_lib.VP())
    x = jax.random.normal(jax.random.key(0), (len(t), 3))
    for sde, atol in ((sde_lib.VP(), 0.0), (sde_lib.CosineVP(), 1e-6)):
        slope = jax.jit(lambda sde: sde.probability_flow(x, t, sde.normal_score(x, t)))(sde)
        rate = np.maximum(1, sde.diffusion(t)[:, None] ** 2) * np.abs(x)
        np.testing.assert_allclose(slope / rate, 0, atol=atol)


@pytest.mark.parametrize('eta', [0.0, 0.5, 1.0])
def test_the_reverse_drift_of_vp_is_that_of_every_sde(eta):
    sde, t = sde_lib.VP(), jnp.linspace(0.1, 1.0, 5)
    x, score = jax.random.normal(jax.random.key(0), (2, 5, 3))
    found, expected = (
        cls.reverse_drift(sde, x, t, score, eta) for cls in (sde_lib.VP, sde_lib.SDE)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('sde', [sde_lib.VP(), sde_lib.VE()], ids=name_of)
def test_bisection_agrees_with_the_closed_form(sde):
    log_snr = jnp.linspace(sde.log_snr(jnp.float32(0.9)), sde.log_snr(jnp.float32(0.05)), 20)
    by_bisection = sde_lib.SDE.time_at_log_snr(sde, log_snr)
    np.testing.assert_allclose(by_bisection, sde.time_at_log_snr(log_snr), rtol=1e-4)


def test_a_new_sde_needs_two_methods():
    class Sine(sde_lib.SDE):
        def log_alpha(self, t):
            return jnp.log(1 - 0.9 * t)

        def sigma(self, t):
            return jnp.sin(t)

    sde, t = Sine(), jnp.linspace(0.1, 0.9, 9)
    alpha, slope = 1 - 0.9 * t, -0.9 / (1 - 0.9 * t)
    np.testing.assert_allclose(sde.alpha(t), alpha, rtol=1e-6)
    np.testing.assert_allclose(sde.f(t), slope, rtol=1e-5)
    g2 = 2 * jnp.sin(t) * jnp.cos(t) - 2 * slope * jnp.sin(t) ** 2
    np.testing.assert_allclose(sde.diffusion(t) ** 2, g2, rtol=1e-5)
    np.testing.assert_allclose(sde.time_at_log_snr(sde.log_snr(t)), t, rtol=1e-5)


# Numbers as parameters


def coefficients(sde, t):
    """All that is computed of an SDE."""
    s = 0.5 * t
    return {
        'T': jnp.asarray(sde.T),
        't_min': jnp.asarray(sde.t_min),
        'prior_std': jnp.asarray(sde.prior_std),
        'log_alpha': sde.log_alpha(t),
        'sigma': sde.sigma(t),
        'f': sde.f(t),
        'diffusion': sde.diffusion(t),
        'log_snr': sde.log_snr(t),
        'time': sde.time_at_log_snr(sde.log_snr(t)),
        'transition': sde.transition(s, t),
        'prior': sde.prior_log_prob(t[:, None]),
    }


@pytest.mark.parametrize('sde', SDES, ids=name_of)
def test_an_sde_is_a_pytree_of_its_numbers(sde):
    fields = {field.name: getattr(sde, field.name) for field in dataclasses.fields(sde)}
    paths, structure = jax.tree_util.tree_flatten_with_path(sde)
    leaves = {path[0].name: number for path, number in paths}
    assert leaves == {name: x for name, x in fields.items() if isinstance(x, float)}
    assert jax.tree.unflatten(structure, leaves.values()) == sde
    # A number of levels gives arrays their shapes.
    if isinstance(sde, sde_lib.Chain):
        assert structure != jax.tree.structure(dataclasses.replace(sde, num_scales=7))


@pytest.mark.parametrize('sde', SDES, ids=name_of)
def test_numbers_may_be_arrays_and_arguments_of_a_program(sde):
    t = interior_times(sde)
    expected = coefficients(sde, t)
    arrays = jax.tree.map(jnp.float32, sde)
    for found in (coefficients(arrays, t), jax.jit(coefficients)(sde, t)):
        # Floats in place of Python's numbers: their rounding, grown by the range of log(sigma).
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5), found, expected
        )


@pytest.mark.parametrize('sde', [sde for sde in SDES if jax.tree.leaves(sde)], ids=name_of)
def test_coefficients_have_derivatives_in_their_numbers(sde):
    """Against central differences in float64."""
    t = jnp.float32(0.6) * sde.T

    def value(sde):
        return sde.log_alpha(t) + jnp.log(sde.sigma(t)) + jnp.log(sde.diffusion(t))

    found = jax.grad(value)(sde)
    assert type(found) is type(sde)
    with jax.enable_x64(True):
        t = jnp.float64(t)
        for field in [f.name for f in dataclasses.fields(sde) if f.type is not int]:
            number = getattr(sde, field)
            step = 1e-4 * abs(number)
            high, low = (
                value(dataclasses.replace(sde, **{field: number + sign * step})) for sign in (1, -1)
            )
            expected = float((high - low) / (2 * step))
            np.testing.assert_allclose(getattr(found, field), expected, rtol=1e-3, atol=1e-5)


# Transitions


@pytest.mark.parametrize('sde', SDES, ids=name_of)
def test_transitions_compose_to_the_perturbation_kernel(sde):
    s, t = jnp.array([0.1, 0.3, 0.6]) * sde.T, jnp.array([0.3, 0.6, 0.9]) * sde.T
    alpha_ts, sigma_ts = sde.transition(s, t)
    np.testing.assert_allclose(alpha_ts * sde.alpha(s), sde.alpha(t), rtol=1e-5)
    variance = (alpha_ts * sde.sigma(s)) ** 2 + sigma_ts**2
    np.testing.assert_allclose(variance, sde.sigma(t) ** 2, rtol=1e-5)


@pytest.mark.parametrize('sde', SDES, ids=name_of)
def test_short_transitions_keep_their_digits(sde):
    """Transitions of 1/1000 of the time, against differences in float64."""
    t = jnp.linspace(0.2, 0.9, 8) * sde.T
    s = t - 0.001 * sde.T
    if isinstance(sde, sde_lib.Chain):
        level = np.round(np.asarray(t) * 1000)
        log_alpha, sigma = chain_reference(sde)
        ratio = np.exp(log_alpha[level.astype(int)] - log_alpha[level.astype(int) - 1])
        now, before = sigma[level.astype(int)], sigma[level.astype(int) - 1]
    else:
        alpha, now, _, _ = reference(sde, t)
        alpha_s, before, _, _ = reference(sde, s)
        ratio = alpha / alpha_s
    expected = np.sqrt(now**2 - (ratio * before) ** 2)
    # The default subtracts log signal-to-noise ratios of order 10 that differ by 0.01.
    np.testing.assert_allclose(sde.transition(s, t)[1], expected, rtol=3e-4)


def chain_reference(sde):
    """(log alpha, sigma) of levels -1 (the data) to N - 1, in float64."""
    n = sde.num_scales
    if isinstance(sde, sde_lib.SMLD):
        sigma = np.exp(np.linspace(math.log(sde.sigma_min), math.log(sde.sigma_max), n))
        return np.zeros(n + 1), np.concatenate([[0], sigma])
    betas = np.linspace(sde.beta_min, sde.beta_max, n) / n
    log_alpha = np.concatenate([[0], 0.5 * np.cumsum(np.log(1 - betas))])
    return log_alpha, np.sqrt(1 - np.exp(2 * log_alpha))


@pytest.mark.parametrize('sde', CHAINS, ids=name_of)
def test_a_chain_is_exact_at_its_levels(sde):
    level = np.arange(sde.num_scales)
    t = jnp.asarray((level + 1) / sde.num_scales, jnp.float32)
    log_alpha, sigma = chain_reference(sde)
    np.testing.assert_array_equal(sde.level(t), level)
    np.testing.assert_allclose(sde.alpha(t), np.exp(log_alpha[1:]), rtol=1e-5)
    np.testing.assert_allclose(sde.sigma(t), sigma[1:], rtol=1e-5)
    assert sde.sigma(jnp.zeros(1)) == 0


# Simulation


PATHS, STEPS = 20_000, 2_000


@functools.cache
def simulated():
    """The last time and x of Euler-Maruyama in log-SNR steps from x_0 = 1, of every SDE.

    All take the same noise, whose drawing is most of the work.
    """

    def times(sde):
        ends = sde.log_snr(jnp.array([max(0.05 * sde.T, sde.t_min), 0.9 * sde.T]))
        return sde.time_at_log_snr(jnp.linspace(*ends, STEPS + 1))

    def start(sde, t):
        noise = jax.random.normal(jax.random.key(0), (PATHS, 1))
        return sde.perturb(jnp.ones((PATHS, 1)), jnp.broadcast_to(t[:1], PATHS), noise)

    def step(sde, x, now, then, noise):
        dt = then - now
        return x + sde.drift(x, now) * dt + sde.diffusion(now) * jnp.sqrt(dt) * noise

    def advance(xs, scanned):
        i, nows, thens = scanned
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(1), i), (PATHS, 1))
        return [step(*args, noise) for args in zip(CONTINUOUS, xs, nows, thens, strict=True)], None

    grids = [times(sde) for sde in CONTINUOUS]
    steps = jnp.arange(STEPS), [t[:-1] for t in grids], [t[1:] for t in grids]
    starts = [start(sde, t) for sde, t in zip(CONTINUOUS, grids, strict=True)]
    xs, _ = jax.jit(lambda xs: jax.lax.scan(advance, xs, steps))(starts)
    return {sde: (t[-1], x) for sde, t, x in zip(CONTINUOUS, grids, xs, strict=True)}


@pytest.mark.parametrize('sde', CONTINUOUS, ids=name_of)
def test_simulated_paths_have_the_moments_of_the_kernel(sde):
    """Within standard errors of mean and variance."""
    t, x = simulated()[sde]
    mean, variance = sde.alpha(t), sde.sigma(t) ** 2
    standard_error = np.sqrt(variance / PATHS)
    # Four standard errors, and the scheme's own error of about one step in 2,000 times 10.
    np.testing.assert_allclose(x.mean(), mean, atol=4 * standard_error + 5e-3 * mean)
    np.testing.assert_allclose(x.var(), variance, rtol=4 * math.sqrt(2 / PATHS) + 5e-3)


@pytest.mark.parametrize('eta', [0.0, 0.5, 1.0])
def test_reverse_sdes_of_any_eta_keep_the_marginals(eta):
    """d E[x^2] / dt = 2 E[x drift] - (eta g)^2 in reverse time is the rate of the marginals."""
    sde, t, variance0 = sde_lib.VP(), jnp.linspace(0.1, 0.9, 5), 0.3

    def moment(t):
        return sde.alpha(t) ** 2 * variance0 + sde.sigma(t) ** 2

    # E[x drift(x)] with score = -x / moment is linear in x^2.
    x = jnp.sqrt(moment(t))[:, None]
    score = -x / moment(t)[:, None]
    drift = sde.reverse_drift(x, t, score, eta)
    rate = 2 * (x * drift)[:, 0] - (eta * sde.diffusion(t)) ** 2
    np.testing.assert_allclose(rate, jax.vmap(jax.grad(moment))(t), rtol=1e-4, atol=1e-5)


# The published code


PUBLISHED = {'vp': sde_lib.VP(), 'subvp': sde_lib.SubVP(), 've': sde_lib.VE()}


@pytest.mark.parametrize('name', PUBLISHED)
def test_continuous_coefficients_agree_with_the_published(name):
    sde, data = PUBLISHED[name], golden.load('sde')
    x, t = jnp.asarray(data['x']), jnp.asarray(data['t'])
    score = golden.score_fn(x, t)
    ours = {
        'drift': sde.drift(x, t),
        'diffusion': sde.diffusion(t),
        'mean': sde.perturb(x, t, jnp.zeros_like(x)),
        'prior_logp': sde.prior_log_prob(x),
        'reverse_drift_pf0': sde.reverse_drift(x, t, score),
        'reverse_diffusion_pf0': sde.diffusion(t),
        'reverse_drift_pf1': sde.probability_flow(x, t, score),
        'reverse_diffusion_pf1': jnp.zeros_like(t),
    }
    for key, value in ours.items():
        np.testing.assert_allclose(
            value, data[f'{name}/{key}'], rtol=golden.RTOL, atol=golden.ATOL, err_msg=key
        )
    # The published sigma loses digits near t = 0: 1e-7 in 1 - exp(-x).
    tolerance = {'rtol': golden.RTOL, 'atol': 1e-7 / np.asarray(sde.sigma(t)).min()}
    np.testing.assert_allclose(sde.sigma(t), data[f'{name}/std'], **tolerance)


@pytest.mark.parametrize(('name', 'chain'), [('vp', CHAINS[0]), ('ve', CHAINS[1])])
def test_transitions_of_the_chains_are_the_published_discretisation(name, chain):
    data = golden.load('sde')
    x, level = jnp.asarray(data['x']), np.floor(data['t'] * 999)
    alpha_ts, sigma_ts = chain.transition(
        jnp.asarray(level / 1000, jnp.float32), jnp.asarray((level + 1) / 1000, jnp.float32)
    )
    change = sde_lib.expand(alpha_ts - 1, x) * x
    tolerance = {'rtol': golden.RTOL, 'atol': golden.ATOL}
    np.testing.assert_allclose(change, data[f'{name}/discretize_f'], **tolerance)
    np.testing.assert_allclose(sigma_ts, data[f'{name}/discretize_G'], **tolerance)


def test_euler_steps_of_sub_vp_are_the_published_discretisation():
    data, sde = golden.load('sde'), sde_lib.SubVP()
    x, t = jnp.asarray(data['x']), jnp.asarray(data['t'])
    np.testing.assert_allclose(
        sde.drift(x, t) / 1000, data['subvp/discretize_f'], rtol=golden.RTOL, atol=golden.ATOL
    )
    np.testing.assert_allclose(
        sde.diffusion(t) * math.sqrt(1 / 1000), data['subvp/discretize_G'], rtol=golden.RTOL
    )


# Input


def test_unknown_names_and_fields_are_refused():
    with pytest.raises(ArgumentError, match="^name: .*did you mean 'subvp'"):
        sde_lib.create('subvpp')
    with pytest.raises(ArgumentError, match='^sigma_max: .* beta_min, beta_max'):
        sde_lib.create('vp', sigma_max=1.0)
    assert sde_lib.create('ve', sigma_max=348.0).prior_std == 348.0

"""Log-likelihoods against the density of a mixture, and bits/dim against counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import likelihood
import sde_lib
from choices import ArgumentError
from datasets import quantization
from parameterization import Process, energy_process
from solvers import latents
from solvers.ode import ODESolver
from tests.support import counting, mixture

SDES = [sde_lib.VP(), sde_lib.SubVP(), sde_lib.VE(), sde_lib.FlowMatching(), sde_lib.CosineVP()]


KEY = jax.random.key(0)
SOLVER = ODESolver()


def log_prob_of(process, x, solver=SOLVER, **options):
    """`likelihood.log_prob`, compiled."""

    def log_prob(image_keys, x):
        return likelihood.log_prob(image_keys, process, x, solver=solver, **options)

    return jax.jit(log_prob)(keys.per_image(KEY, len(x)), x)


@pytest.mark.parametrize('sde', SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize('dim', [2, 32])
def test_log_prob_is_that_of_the_mixture(sde, dim):
    """At t_min, where the mixture's density is known; the rest is the prior's distance from p_T."""
    data = mixture.example(dim)
    x = data.sample(jax.random.key(1), 16)
    found = log_prob_of(data.process(sde), x, divergence='exact')
    exact = data.log_prob(x, sde, jnp.float32(sde.t_min))
    # The prior stands in for p_T: this is what that costs at the codes.
    gap = sde.prior_log_prob(found.latent) - data.log_prob(found.latent, sde, jnp.float32(sde.T))
    error = np.abs(found.log_prob - gap - exact) / dim
    assert error.max() < 1e-4
    assert np.abs(gap).max() < 0.05 * dim


def test_log_prob_of_normal_data_is_exact():
    """That of N(0, alpha^2 s^2 + sigma^2) at t_min, with one s for each dimension."""
    sde, t_min, std = sde_lib.VP(), 0.01, jnp.array([0.3, 1.0, 2.0])

    def std_at(t):
        return jnp.sqrt((sde.alpha(t) * std) ** 2 + sde.sigma(t) ** 2)

    x = std * jax.random.normal(jax.random.key(1), (8, 3))
    process = Process(sde, lambda x, t: -x / std_at(t[:, None]) ** 2)
    found = log_prob_of(process, x, divergence='exact', t_min=t_min)

    def exact(x, t):
        return jax.scipy.stats.norm.logpdf(x, scale=std_at(jnp.float32(t))).sum(axis=1)

    # The prior stands in for p_T, whose variance is 1.2e-4 off.
    gap = sde.prior_log_prob(found.latent) - exact(found.latent, sde.T)
    np.testing.assert_allclose(found.log_prob - gap, exact(x, t_min), atol=1e-4)


def test_differences_of_an_energy_are_those_of_the_log_prob_by_the_ode():
    """A density up to a constant, and that of its score, which the ODE finds whole."""
    data, sde = mixture.example(2), sde_lib.VP()

    def log_density(x, t):
        return jax.vmap(lambda x, t: data.log_prob(x[None], sde, t)[0] + 7.0)(x, t)

    process, x = energy_process(sde, log_density), data.sample(jax.random.key(1), 16)
    found = log_prob_of(process, x, divergence='exact').log_prob
    constants = process.log_density(x, jnp.full(16, sde.t_min)) - found
    np.testing.assert_allclose(constants, 7.0, atol=2e-3)


@pytest.mark.parametrize('solver', ['tsit5', 'dopri5'])
def test_a_log_prob_has_derivatives_in_the_numbers_of_the_sde(solver):
    """Forward through the solver: of N(0, s^2 I) the ODE's density is that of the prior, stretched.

    At a small beta_max the prior's distance from p_T matters, and moves with it.
    """
    s, t_min, dim = 0.5, 1e-3, 3
    x = jnp.array([[0.2, -0.4, 0.9], [1.0, 0.0, 0.1]])

    def variance(sde, t):
        return (sde.alpha(t) * s) ** 2 + sde.sigma(t) ** 2

    def found(beta_max):
        sde = sde_lib.VP(beta_max=beta_max)
        process = Process(sde, lambda x, t: -x / variance(sde, t)[:, None])
        options = {'solver': ODESolver(solver, 1e-6, 1e-6), 't_min': t_min, 'divergence': 'exact'}
        return likelihood.log_prob(keys.per_image(KEY, 2), process, x, **options).log_prob

    def exact(beta_max):
        sde = sde_lib.VP(beta_max=beta_max)
        r = jnp.sqrt(variance(sde, jnp.float32(1)) / variance(sde, jnp.float32(t_min)))
        return sde.prior_log_prob(r * x) + dim * jnp.log(r)

    at = (jnp.float32(4.0),), (jnp.float32(1.0),)
    value, slope = jax.jit(lambda: jax.jvp(found, *at))()
    expected_value, expected_slope = jax.jvp(exact, *at)
    np.testing.assert_allclose(value, expected_value, atol=1e-4)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-2, atol=1e-4)
    assert np.abs(expected_slope).min() > 1e-3


REPEATS = 200


def repeated(num_probes, divergence='rademacher', num=REPEATS):
    """Estimates of the log-density of one point, by independent keys."""
    sde, data = sde_lib.VP(), mixture.example(8)
    x = data.sample(jax.random.key(1), 1).repeat(num, 0)
    solver = ODESolver(rtol=1e-4, atol=1e-4)
    options = {'divergence': divergence, 'num_probes': num_probes}
    return log_prob_of(data.process(sde), x, solver, **options)


@pytest.mark.parametrize('divergence', ['rademacher', 'gaussian'])
def test_intervals_of_hutchinson_cover_the_truth(divergence):
    found, exact = repeated(32, divergence), repeated(1, 'exact', num=1).log_prob
    t = (found.log_prob - exact) / found.standard_error
    # 95 % of Student's t with 31 degrees of freedom is within 2.04.
    assert 0.90 <= np.mean(np.abs(t) < 2.04) <= 0.99
    assert abs(t.mean()) < 4 / np.sqrt(REPEATS)


def test_standard_errors_fall_as_the_root_of_the_number_of_probes():
    few, many = repeated(4), repeated(64)
    stated = [np.sqrt(np.mean(found.standard_error**2)) for found in (few, many)]
    actual = [found.log_prob.std(ddof=1) for found in (few, many)]
    # A deviation of 200 values has a standard error of 5 %, the ratio of two one of 7 %.
    np.testing.assert_allclose(stated[0] / stated[1], 4, rtol=0.15)
    np.testing.assert_allclose(actual[0] / actual[1], 4, rtol=0.25)
    np.testing.assert_allclose(stated, actual, rtol=0.2)


def test_standard_errors_of_one_probe_and_of_the_exact_divergence():
    data, solver = mixture.example(), ODESolver(rtol=1e-2, atol=1e-2)
    x, process = data.sample(jax.random.key(1), 3), data.process(sde_lib.VP())
    assert np.isnan(log_prob_of(process, x, solver).standard_error).all()
    exact = log_prob_of(process, x, solver, divergence='exact')
    np.testing.assert_array_equal(exact.standard_error, 0)


def test_decoding_the_latent_code_gives_back_the_image():
    data = mixture.example()
    x, process = data.sample(jax.random.key(1), 32), data.process(sde_lib.SubVP())

    def error(tol):
        solver = ODESolver(rtol=tol, atol=tol)
        code, *_ = latents.encode(process, x, solver=solver)
        back, *_ = latents.decode(process, code, solver=solver)
        return likelihood.round_trip_error(x, back).max()

    fine, coarse = error(1e-5), error(1e-2)
    assert fine < 1e-3
    # It is the solver's error that is reported.
    assert coarse > 10 * fine


def test_the_code_is_identified_by_the_data_alone():
    """The codes of N(m, s^2) are known: each solver, and stepping by batch, finds the same."""
    sde, mean, std = sde_lib.VP(), 0.5, 0.3
    data = mixture.Mixture(jnp.full((1, 3), mean), std)
    x = data.sample(jax.random.key(1), 8)
    alpha, sigma = sde.alpha(jnp.float32(1)), sde.sigma(jnp.float32(1))
    scale = jnp.sqrt((alpha * std) ** 2 + sigma**2) / std
    for solver in (SOLVER, ODESolver('bosh3', per_image=False)):
        code, *_ = latents.encode(data.process(sde), x, solver=solver)
        # x(t_min) has a little noise in its deviation: 6e-6 of it.
        np.testing.assert_allclose(code, alpha * mean + scale * (x - mean), atol=2e-4)


def test_round_trip_error_is_a_root_mean_square_over_pixels():
    x = jnp.zeros((2, 2, 2, 1))
    decoded = x.at[0, 0, 0, 0].set(2.0)
    np.testing.assert_allclose(likelihood.round_trip_error(x, decoded), [1.0, 0.0])


def test_a_likelihood_depends_on_the_image_and_its_key_alone():
    data = mixture.example(3)
    x, process = data.sample(jax.random.key(1), 4), data.process(sde_lib.VP())
    image_keys = keys.per_image(KEY, 4)

    def log_prob(image_keys, x, solver=SOLVER):
        return likelihood.log_prob(image_keys, process, x, solver=solver, t_min=1e-4)

    together = log_prob(image_keys, x)
    alone = log_prob(image_keys[3:], x[3:])
    np.testing.assert_allclose(alone.log_prob[0], together.log_prob[3], rtol=1e-5)
    assert alone.nfe[0] == together.nfe[3]
    by_batch = log_prob(image_keys, x, ODESolver(per_image=False))
    assert len(set(np.asarray(by_batch.nfe))) == 1 < len(set(np.asarray(together.nfe)))
    np.testing.assert_allclose(by_batch.log_prob, together.log_prob, atol=3e-3)


def test_drift_and_divergence_share_one_network_call():
    """`nfe` counts evaluations with their derivatives; the score is called no more often."""
    process, calls = counting.counted(mixture.example(4).process(sde_lib.VP()))
    solver = ODESolver(rtol=1e-3, atol=1e-3)
    found = log_prob_of(process, jnp.ones((1, 4)), solver, t_min=1e-3, num_probes=3)
    jax.block_until_ready(found)
    assert int(found.nfe[0]) == len(calls)


def test_bits_per_dim_of_uniform_bins_is_eight():
    """A uniform density over the range of the data gives log2(256) bits, in either scaling."""
    for centered, width in ((True, 2.0), (False, 1.0)):
        log_prob = -10 * np.log(width) * np.ones(1)
        found = likelihood.bits_per_dim(log_prob, 10, quantization.bin_width(centered))
        np.testing.assert_allclose(found, 8.0, rtol=1e-6)


def test_unknown_divergences_are_refused():
    process = mixture.example().process(sde_lib.VP())
    with pytest.raises(ArgumentError, match='^divergence: .*exact, rademacher, gaussian'):
        log_prob_of(process, jnp.ones((1, 2)), divergence='ex')

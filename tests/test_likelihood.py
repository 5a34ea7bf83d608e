"""Log-likelihoods against the density of a mixture, and bits/dim against counting."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import likelihood
import sde_lib
from choices import InputError
from datasets import quantization
from solvers import latents
from tests.support import mixture

SDES = [sde_lib.VP(), sde_lib.SubVP(), sde_lib.VE(), sde_lib.FlowMatching(), sde_lib.CosineVP()]


KEY = jax.random.key(0)


def log_prob_of(sde, data, x, key=KEY, **fields):
    """`likelihood.log_prob` under the exact score."""
    function = functools.partial(
        likelihood.log_prob, score_fn=data.score_fn(sde), sde=sde, t_min=sde.t_min, **fields
    )
    return jax.jit(function)(keys.per_image(key, len(x)), x=x)


@pytest.mark.parametrize('sde', SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize('dim', [2, 32])
def test_log_prob_is_that_of_the_mixture(sde, dim):
    """At t_min, where the mixture's density is known; the rest is the prior's distance from p_T."""
    data = mixture.example(dim)
    x = data.sample(jax.random.key(1), 16)
    found = log_prob_of(sde, data, x, divergence='exact')
    exact = data.log_prob(x, sde, jnp.float32(sde.t_min))
    # The prior stands in for p_T: this is what that costs at the codes.
    gap = sde.prior_log_prob(found.latent) - data.log_prob(found.latent, sde, jnp.float32(sde.T))
    error = np.abs(found.log_prob - gap - exact) / dim
    assert error.max() < 1e-4
    assert np.abs(gap).max() < 0.05 * dim


REPEATS = 200


def repeated(num_probes, divergence='rademacher', num=REPEATS):
    """Estimates of the log-density of one point, by independent keys."""
    sde, data = sde_lib.VP(), mixture.example(8)
    x = data.sample(jax.random.key(1), 1).repeat(num, 0)
    fields = {'rtol': 1e-4, 'atol': 1e-4, 'num_probes': num_probes}
    return log_prob_of(sde, data, x, divergence=divergence, **fields)


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
    data = mixture.example()
    x = data.sample(jax.random.key(1), 3)
    fields = {'rtol': 1e-2, 'atol': 1e-2}
    assert np.isnan(log_prob_of(sde_lib.VP(), data, x, **fields).standard_error).all()
    exact = log_prob_of(sde_lib.VP(), data, x, divergence='exact', **fields)
    np.testing.assert_array_equal(exact.standard_error, 0)


SOLVE = {'solver': 'tsit5', 'rtol': 1e-5, 'atol': 1e-5}


def test_decoding_the_latent_code_gives_back_the_image():
    sde, data = sde_lib.SubVP(), mixture.example()
    x = data.sample(jax.random.key(1), 32)
    score_fn, fields = data.score_fn(sde), {'sde': sde, 't_min': sde.t_min, 'solver': 'tsit5'}

    @jax.jit
    def error(tol):
        code, _ = latents.encode(score_fn, x, **fields, rtol=tol, atol=tol)
        back, _ = latents.decode(score_fn, code, **fields, rtol=tol, atol=tol)
        return likelihood.round_trip_error(x, back).max()

    assert error(1e-5) < 1e-3
    # It is the solver's error that is reported.
    assert error(1e-2) > 10 * error(1e-5)


def test_the_code_is_identified_by_the_data_alone():
    """The codes of N(m, s^2) are known: each solver, and stepping by batch, finds the same."""
    sde, mean, std = sde_lib.VP(), 0.5, 0.3
    data = mixture.Mixture(jnp.full((1, 3), mean), std)
    x = data.sample(jax.random.key(1), 8)
    alpha, sigma = sde.alpha(jnp.float32(1)), sde.sigma(jnp.float32(1))
    scale = jnp.sqrt((alpha * std) ** 2 + sigma**2) / std
    for fields in (SOLVE, {**SOLVE, 'solver': 'bosh3', 'per_image': False}):
        code, _ = latents.encode(data.score_fn(sde), x, sde=sde, t_min=sde.t_min, **fields)
        # x(t_min) has a little noise in its deviation: 6e-6 of it.
        np.testing.assert_allclose(code, alpha * mean + scale * (x - mean), atol=2e-4)


def test_round_trip_error_is_a_root_mean_square_over_pixels():
    x = jnp.zeros((2, 2, 2, 1))
    decoded = x.at[0, 0, 0, 0].set(2.0)
    np.testing.assert_allclose(likelihood.round_trip_error(x, decoded), [1.0, 0.0])


def test_a_likelihood_depends_on_the_image_and_its_key_alone():
    data = mixture.example(3)
    x = data.sample(jax.random.key(1), 4)
    image_keys = keys.per_image(KEY, 4)

    def log_prob(image_keys, x, **fields):
        sde = sde_lib.VP()
        return likelihood.log_prob(
            image_keys, data.score_fn(sde), x, sde=sde, t_min=1e-4, **SOLVE, **fields
        )

    together = log_prob(image_keys, x)
    alone = log_prob(image_keys[3:], x[3:])
    np.testing.assert_allclose(alone.log_prob[0], together.log_prob[3], rtol=1e-5)
    assert alone.nfe[0] == together.nfe[3]
    by_batch = log_prob(image_keys, x, per_image=False)
    assert len(set(np.asarray(by_batch.nfe))) == 1 < len(set(np.asarray(together.nfe)))
    np.testing.assert_allclose(by_batch.log_prob, together.log_prob, atol=3e-3)


def test_drift_and_divergence_share_one_network_call():
    """`nfe` counts evaluations with their derivatives; the score is called no more often."""
    sde, calls = sde_lib.VP(), []
    exact = mixture.example(4).score_fn(sde)

    def count(x):
        calls.append(1)
        return x

    @jax.custom_jvp
    def counted(x):
        return jax.pure_callback(count, x, x, vmap_method='sequential')

    @counted.defjvp
    def _(primals, tangents):
        return counted(*primals), tangents[0]

    found = jax.jit(
        lambda x: likelihood.log_prob(
            keys.per_image(KEY, 1),
            lambda x, t: exact(counted(x), t),
            x,
            sde=sde,
            t_min=1e-3,
            num_probes=3,
            rtol=1e-3,
            atol=1e-3,
        )
    )(jnp.ones((1, 4)))
    jax.block_until_ready(found)
    assert int(found.nfe[0]) == len(calls)


def test_bits_per_dim_of_uniform_bins_is_eight():
    """A uniform density over the range of the data gives log2(256) bits, in either scaling."""
    for centered, width in ((True, 2.0), (False, 1.0)):
        log_prob = -10 * np.log(width) * np.ones(1)
        found = likelihood.bits_per_dim(log_prob, 10, quantization.bin_width(centered))
        np.testing.assert_allclose(found, 8.0, rtol=1e-6)


def test_unknown_divergences_are_refused():
    with pytest.raises(InputError, match='exact, rademacher, gaussian'):
        log_prob_of(sde_lib.VP(), mixture.example(), jnp.ones((1, 2)), divergence='ex')

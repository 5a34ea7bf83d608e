"""Log-likelihoods against the density of a mixture, and bits/dim against counting."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import images
import keys
import likelihood
import sampling
import sde_lib
from choices import InputError
from tests import mixture

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
    print(type(sde).__name__, dim, 'max error', error.max(), 'nfe', found.nfe.mean())
    assert error.max() < 1e-4
    assert np.abs(gap).max() < 0.05 * dim


def test_standard_errors_of_one_probe_and_of_the_exact_divergence():
    data = mixture.example()
    x = data.sample(jax.random.key(1), 3)
    fields = {'rtol': 1e-2, 'atol': 1e-2}
    assert np.isnan(log_prob_of(sde_lib.VP(), data, x, **fields).standard_error).all()
    exact = log_prob_of(sde_lib.VP(), data, x, divergence='exact', **fields)
    np.testing.assert_array_equal(exact.standard_error, 0)


def test_decoding_the_latent_code_gives_back_the_image():
    sde, data = sde_lib.SubVP(), mixture.example()
    x = data.sample(jax.random.key(1), 32)
    code = log_prob_of(sde, data, x, divergence='exact').latent
    back, _ = sampling.ode.solve(
        sampling.ode.velocity(sde, data.score_fn(sde)),
        code,
        None,
        sde.T,
        sde.t_min,
        sde=sde,
        solver='tsit5',
        rtol=1e-5,
        atol=1e-5,
    )
    np.testing.assert_allclose(back, x, atol=2e-3)


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
            jax.random.key(0),
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
        found = likelihood.bits_per_dim(log_prob, 10, images.bin_width(centered))
        np.testing.assert_allclose(found, 8.0, rtol=1e-6)


def test_unknown_divergences_are_refused():
    with pytest.raises(InputError, match='exact, rademacher, gaussian'):
        log_prob_of(sde_lib.VP(), mixture.example(), jnp.ones((1, 2)), divergence='ex')

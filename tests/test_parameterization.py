"""From outputs to scores: the networks that are right give the scores that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import keys
import likelihood
import parameterization
import sampling
import sde_lib
from parameterization import Process
from sde_lib import expand
from solvers.ode import ODESolver

X = jax.random.normal(jax.random.key(0), (5, 3, 3, 1))
V = 0.25  # Data are N(0, V I).


def exact_score(sde, t):
    return -X / expand(sde.alpha(t) ** 2 * V + sde.sigma(t) ** 2, X)


@pytest.mark.parametrize('name', [n for n in sde_lib.SDES if n not in ('ddpm', 'smld')])
def test_a_perfect_edm_network_is_zero_on_gaussian_data(name):
    """With sigma_data^2 = V the preconditioning alone is the exact score of N(0, V I)."""
    sde = sde_lib.create(name)
    t = sde.t_min + jnp.linspace(0, 1, 5) * (sde.T - sde.t_min)

    def score_fn(x, t):
        return parameterization.edm(
            sde, lambda x, label: jnp.zeros_like(x), x, t, sigma_data=V**0.5
        )

    np.testing.assert_allclose(score_fn(X, t), exact_score(sde, t), rtol=1e-4)


def test_edm_follows_the_equations_of_the_paper():
    """D = c_skip x + c_out F(c_in x, c_noise), score = (D - x) / sigma^2 (Karras et al. 2022)."""
    sde, t, s = sde_lib.EDM(), jnp.array([0.1, 0.5, 1.0, 5.0, 50.0]), 0.5

    def network(x, label):
        return jnp.sin(3 * x) + expand(jnp.log(label), x)

    sigma = expand(t, X)
    c_skip = s**2 / (sigma**2 + s**2)
    c_out = sigma * s / jnp.sqrt(sigma**2 + s**2)
    c_in = 1 / jnp.sqrt(sigma**2 + s**2)
    denoised = c_skip * X + c_out * network(c_in * X, jnp.exp(jnp.log(t) / 4))
    found = parameterization.edm(sde, network, X, t)
    np.testing.assert_allclose(found, (denoised - X) / sigma**2, rtol=1e-4, atol=1e-5)


def test_labels_are_the_published_ones():
    def label_of(name, sde, t):
        seen = []
        network = lambda x, label: (seen.append(label), x)[1]  # noqa: E731
        score_fn = functools.partial(parameterization.PARAMETERIZATIONS[name], sde, network)
        score_fn(X[:1], jnp.array([t]))
        return seen[0].item()

    assert label_of('noise', sde_lib.VP(), 0.5) == pytest.approx(499.5)
    assert label_of('score', sde_lib.VE(), 1.0) == pytest.approx(50.0, rel=1e-5)
    assert label_of('ddpm', sde_lib.DDPM(), 1.0) == 999
    assert label_of('ddpm', sde_lib.DDPM(), 0.001) == 0
    assert label_of('smld', sde_lib.SMLD(), 1.0) == 0  # Labels count from the noisiest level.


def test_noise_predictions_are_scores_times_minus_sigma():
    sde, t = sde_lib.SubVP(), jnp.linspace(0.1, 1.0, 5)
    found = parameterization.noise(sde, lambda x, label: jnp.ones_like(x), X, t)
    np.testing.assert_allclose(found * expand(sde.sigma(t), X), -jnp.ones_like(X), rtol=1e-6)


def test_fourier_features_are_the_mean_ones_of_a_noisy_image():
    """E[sin(2^n pi (x + s noise))], by a mean over a fine grid of quantiles of the noise."""
    y, s = jnp.array([[-0.7, 0.2, 0.9]]), jnp.array([[0.01, 0.1, 1.0]])
    noise = jax.scipy.stats.norm.ppf((jnp.arange(20000) + 0.5) / 20000)
    found = jnp.stack(parameterization.fourier_features(y, s, (0, 3)))
    # The sine of the noise averages out, and its cosine is what damps.
    expected = [
        jnp.cos(2**n * jnp.pi * s[..., None] * noise).mean(-1) * wave(2**n * jnp.pi * y)
        for n in (0, 3)
        for wave in (jnp.sin, jnp.cos)
    ]
    np.testing.assert_allclose(found, jnp.stack(expected), atol=1e-4)


def test_edm_shows_fourier_features_to_the_network():
    sde, seen = sde_lib.EDM(), []
    network = lambda x, label: (seen.append(x), x[..., :1])[1]  # noqa: E731
    t = jnp.array([1e-3, 0.02, 0.1, 1.0, 50.0])
    parameterization.edm(sde, network, X, t, input_fourier=(2, 6))
    assert seen[0].shape == (5, 3, 3, 5)
    damping = jnp.exp(-0.5 * (64 * jnp.pi * 1e-3) ** 2)
    expected = damping * jnp.sin(64 * jnp.pi * X[0, ..., 0])
    np.testing.assert_allclose(seen[0][0, ..., 3], expected, atol=1e-5)
    assert jnp.abs(seen[0][-1, ..., 1:]).max() == 0


# Mixed with the score of normal data


def wrong(x, labels):
    """A network that has learned nothing."""
    return jnp.sin(7 * x) + 0.3


def mixed(sde, logit, name='noise'):
    """The process of a mixed score, compiled."""
    parameterize = parameterization.PARAMETERIZATIONS[name]
    logit = jnp.atleast_1d(jnp.float32(logit))
    return Process(
        sde, jax.jit(lambda x, t: parameterization.mixed(parameterize, logit, sde, wrong, x, t))
    )


@pytest.mark.parametrize('name', list(sde_lib.SDES))
def test_a_mixed_score_is_the_mixture_of_predicted_noises(name):
    """(1 - a) sigma x / (alpha^2 + sigma^2) + a noise (Vahdat et al. 2021), a for each channel."""
    sde = sde_lib.create(name)
    t = sde.t_min + jnp.linspace(0.1, 1, 5) * (sde.T - sde.t_min)
    x, logit = jax.random.normal(jax.random.key(1), (5, 3, 3, 2)), jnp.array([-3.0, 1.0])
    alpha, sigma = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
    a = 1 / (1 + jnp.exp(-logit))
    noise = (1 - a) * sigma * x / (alpha**2 + sigma**2) + a * wrong(x, t)
    found = sde.noise(t, mixed(sde, logit).score(x, t))
    np.testing.assert_allclose(found, noise, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['noise', 'edm'])
def test_with_no_share_of_the_network_the_ode_stands_still(name):
    """Of VP: samples are the noise that they begin with, and codes have the density of N(0, I)."""
    process = mixed(sde_lib.VP(), -jnp.inf, name)
    image_keys, solver = keys.per_image(jax.random.key(2), 4), ODESolver()
    x = 3 * jax.random.normal(jax.random.key(1), (4, 8))
    sampler = sampling.create('ode', denoise=False)
    drawn = jax.jit(lambda x: sampler(image_keys, process, x.shape[1:], x_init=x).x)(x)
    np.testing.assert_array_equal(drawn, x)
    found = jax.jit(
        lambda x: likelihood.log_prob(image_keys, process, x, solver=solver, divergence='exact')
    )(x)
    np.testing.assert_array_equal(found.latent, x)
    np.testing.assert_allclose(found.log_prob, stats.norm.logpdf(x).sum(axis=1), rtol=1e-6)


def test_a_whole_share_of_the_network_is_its_score():
    sde, t = sde_lib.SubVP(), jnp.linspace(0.1, 1.0, 5)
    expected = parameterization.noise(sde, wrong, X, t)
    # The normal score, taken away and added again, leaves its rounding.
    np.testing.assert_allclose(mixed(sde, jnp.inf).score(X, t), expected, rtol=1e-5, atol=1e-5)


# Processes


def test_a_process_denoises_by_tweedies_formula():
    sde, t = sde_lib.SubVP(), jnp.linspace(0.1, 1.0, 5)
    process = Process(sde, lambda x, t: exact_score(sde, t))
    # E[x_0 | x_t] of N(0, V I) is linear in x_t.
    gain = sde.alpha(t) * V / (sde.alpha(t) ** 2 * V + sde.sigma(t) ** 2)
    # At T an alpha of 0.007 divides what is left of x_t, of size 1 in float32.
    np.testing.assert_allclose(process.denoise(X, t), expand(gain, X) * X, rtol=1e-4, atol=5e-5)


def learned(variance, sde, x, t):
    """The score of N(0, variance I)."""
    return -x / expand(sde.alpha(t) ** 2 * variance + sde.sigma(t) ** 2, x)


def test_a_process_is_a_pytree_of_the_numbers_of_its_sde_and_of_its_score():
    sde = sde_lib.VP()
    bound = Process(sde, jax.tree_util.Partial(learned, 0.25, sde))
    assert jax.tree.leaves(bound) == [0.1, 20.0, 0.25, 0.1, 20.0]
    plain = Process(sde, lambda x, t: -x)
    assert jax.tree.leaves(plain) == [0.1, 20.0]
    for process in (bound, plain):
        again = jax.tree.map(lambda number: number, process)
        assert again.sde == sde
        np.testing.assert_array_equal(again.score(X, jnp.ones(5)), process.score(X, jnp.ones(5)))


def test_a_process_is_an_argument_of_programs_and_of_their_derivatives():
    sde, t = sde_lib.VP(), jnp.linspace(0.1, 1.0, 5)

    def process(variance):
        return Process(sde, jax.tree_util.Partial(learned, variance, sde))

    calls = []

    @jax.jit
    def denoise(process):
        calls.append(1)
        return process.denoise(X, t)

    for variance in (0.25, 0.5):
        expected = process(variance).denoise(X, t)
        np.testing.assert_allclose(denoise(process(variance)), expected, rtol=1e-5)
    assert len(calls) == 1  # One program for all variances.

    def loss(process):
        return jnp.sum(process.score(X, t) ** 2)

    # Of one number that is known: d/dv (1 / (alpha^2 v + sigma^2))^2.
    (found,) = jax.grad(loss)(process(0.25)).score.args[:1]
    total = expand(sde.alpha(t) ** 2 * 0.25 + sde.sigma(t) ** 2, X)
    expected = jnp.sum(-2 * expand(sde.alpha(t), X) ** 2 * X**2 / total**3)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


# Energies


def bowl(stiffness, x, t):
    """A quartic whose gradient is known, of each state."""
    flat = x.reshape(len(x), -1)
    return -stiffness * jnp.sum(flat**4, axis=1) / (1 + t)


def test_the_score_of_an_energy_is_the_gradient_of_its_log_density():
    t = jnp.linspace(0.1, 1.0, len(X))
    process = parameterization.energy_process(sde_lib.VP(), functools.partial(bowl, 0.5))
    np.testing.assert_allclose(process.score(X, t), -2 * X**3 / expand(1 + t, X), rtol=1e-5)
    assert process.log_density(X, t).shape == (len(X),)


def test_an_energy_is_an_argument_of_programs_and_its_parameters_are_leaves_once():
    bound = jax.tree_util.Partial(bowl, 0.5)
    process = parameterization.energy_process(sde_lib.VP(), bound)
    assert jax.tree.leaves(process) == [0.1, 20.0, 0.5]
    t = jnp.full(len(X), 0.5)

    def squares(process):
        return jnp.sum(process.score(X, t) ** 2)

    found = jax.jit(jax.grad(squares))(process)
    # The score is in proportion to the stiffness.
    expected = 2 * squares(process) / 0.5
    np.testing.assert_allclose(jax.tree.leaves(found)[2], expected, rtol=1e-5)
    again = jax.jit(lambda process: process)(process)
    np.testing.assert_allclose(again.log_density(X, t), process.log_density(X, t), rtol=1e-6)


def test_with_another_score_no_density_is_known():
    process = parameterization.energy_process(sde_lib.VP(), functools.partial(bowl, 0.5))
    assert process.with_score(lambda x, t: -x).log_density is None
    assert Process(sde_lib.VP(), lambda x, t: -x).log_density is None


T = jnp.linspace(0.1, 1.0, len(X))


def gradient(log_density):
    """The score of an energy at X and T."""
    return jax.grad(lambda x: log_density(x, T).sum())(X)


def test_an_inner_product_has_the_score_of_a_normal_distribution_that_its_network_has():
    """Of correlated data, whose score is linear, with a symmetric matrix."""
    sde, dim = sde_lib.VP(), X[0].size
    factor = jax.random.normal(jax.random.key(1), (dim, dim))
    precision = jnp.eye(dim) + factor @ factor.T

    def network(x, label):
        return -(x.reshape(len(x), -1) @ precision).reshape(x.shape)

    energy = functools.partial(parameterization.inner, parameterization.score, sde, network)
    expected = parameterization.score(sde, network, X, T)
    np.testing.assert_allclose(gradient(energy), expected, rtol=1e-4, atol=1e-4)


def test_a_norm_has_the_score_of_a_projection_on_a_plane():
    """The distance from the first half of the numbers: score = -(x - projection) / sigma^2."""
    sde, known = sde_lib.VP(), jnp.arange(X[0].size).reshape(X.shape[1:]) < X[0].size // 2

    def score(sde, network, x, t):
        return -jnp.where(known, 0.0, x) / expand(sde.sigma(t) ** 2, x)

    energy = functools.partial(parameterization.norm, score, sde, jnp.add)
    np.testing.assert_allclose(gradient(energy), score(sde, jnp.add, X, T), rtol=1e-5)


@pytest.mark.parametrize('name', parameterization.SCALAR_ENERGIES)
def test_the_gradient_of_a_scalar_network_takes_the_place_of_an_output(name):
    sde = sde_lib.VP()

    def scalar(x, label):
        return jnp.sum(jnp.sin(2 * x) * expand(1 + label, x), axis=(1, 2, 3))

    def output(x, label):
        return jax.grad(lambda x: scalar(x, label).sum())(x)

    energy = functools.partial(parameterization.SCALAR_ENERGIES[name], sde, scalar)
    expected = parameterization.PARAMETERIZATIONS[name](sde, output, X, T)
    np.testing.assert_allclose(gradient(energy), expected, rtol=1e-4, atol=1e-5)


def test_a_scalar_edm_network_sees_the_fourier_features_that_others_see():
    sde, seen = sde_lib.VP(), []

    def network(x, label):
        seen.append((x, label))
        return x if len(seen) == 2 else x.sum((1, 2, 3))

    parameterization.edm_energy(sde, network, X, T, input_fourier=(0, 2))

    def first_channel(x, label):
        return network(x, label)[..., :1]

    parameterization.edm(sde, first_channel, X, T, input_fourier=(0, 2))
    for energy, field in zip(*seen, strict=True):
        np.testing.assert_allclose(energy, field, rtol=1e-5, atol=1e-6)


def test_beside_the_prior_a_network_of_nothing_leaves_the_probability_flow_still():
    sde = sde_lib.DoubleWell()

    def nothing(x, label):
        return jnp.zeros_like(x)

    score = parameterization.beside_prior(sde, nothing, X, T)
    scale = np.abs(sde.drift(X, T)).max()
    np.testing.assert_allclose(
        sde.probability_flow(X, T, score), jnp.zeros_like(X), atol=1e-6 * scale
    )

    def scalar(x, label):
        return jnp.sum(jnp.sin(x) * expand(1 + label, x), axis=(1, 2, 3))

    def output(x, label):
        return jnp.cos(x) * expand(1 + label, x)

    energy = functools.partial(parameterization.beside_prior_energy, sde, scalar)
    expected = parameterization.beside_prior(sde, output, X, T)
    np.testing.assert_allclose(gradient(energy), expected, rtol=1e-4, atol=1e-4)

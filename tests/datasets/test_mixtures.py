"""Mixtures against automatic differentiation and a direct sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from datasets.mixtures import Mixture
from tests.support import mixture


@pytest.mark.parametrize('name', ['vp', 've', 'edm'])
def test_the_score_is_the_gradient_of_the_log_density(name):
    data, sde = mixture.example(3), sde_lib.create(name)
    x = sde.T * jax.random.normal(jax.random.key(0), (16, 3))
    t = jnp.linspace(0.05, 1, 16) * sde.T
    expected = jax.vmap(jax.grad(lambda x, t: data.log_prob(x[None], sde, t)[0]))(x, t)
    np.testing.assert_allclose(data.process(sde).score(x, t), expected, rtol=1e-3, atol=1e-4)


def test_the_empirical_denoiser_is_the_mean_over_images_by_their_distance():
    images = jax.random.uniform(jax.random.key(0), (50, 4, 4, 1))
    sde = sde_lib.VE()
    process = Mixture(images.reshape(50, 16), 0.0).process(sde)
    x = images[:3] + 0.3 * jax.random.normal(jax.random.key(1), (3, 4, 4, 1))
    t = sde.time_at_log_snr(jnp.full(3, -2 * np.log(0.3)))
    squares = np.sum((np.asarray(x)[:, None] - images) ** 2, axis=(2, 3, 4))
    weights = np.exp(-squares / (2 * 0.3**2))
    expected = np.tensordot(weights / weights.sum(1, keepdims=True), images, axes=1)
    np.testing.assert_allclose(process.denoise(x, t), expected, atol=1e-4)


def test_a_mixture_is_distributed_as_it_says():
    """Its log-density is that of its draws: the mean of p / p' is 1 for another density p'."""
    data, sde, t = mixture.example(2), sde_lib.VP(), jnp.float32(0.1)
    key_data, key_noise = jax.random.split(jax.random.key(0))
    x = sde.perturb(data.sample(key_data, 20_000), t, jax.random.normal(key_noise, (20_000, 2)))
    other = -0.5 * jnp.sum(x**2 / 4, axis=1) - jnp.log(2 * jnp.pi * 4)
    ratio = np.exp(other - data.log_prob(x, sde, t))
    # The ratio has heavy tails outside the mixture: cut where both densities are.
    inside = np.asarray(jnp.abs(x).max(axis=1) < 2)
    in_square = 0.6826895**2  # |x| < 2 is one standard deviation of the other density
    error = np.std(ratio * inside) / np.sqrt(20_000)
    assert abs(np.mean(ratio * inside) - in_square) < 5 * error < 0.5

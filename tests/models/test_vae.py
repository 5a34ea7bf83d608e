"""Autoencoders: shapes, bounds and densities of codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from choices import ArgumentError
from models import vae
from models.vae import AUTOENCODERS, Codes

SMALL = {'mlp': {'width': 8}, 'convolutional': {'nf': 4, 'halvings': 1}}


def create(name, **fields):
    return AUTOENCODERS[name](code_channels=3, **{**SMALL[name], **fields})


@pytest.mark.parametrize(('name', 'shape'), [('mlp', (1, 1, 3)), ('convolutional', (3, 4, 3))])
def test_codes_are_states_of_the_shape_that_they_say(name, shape):
    network = create(name, image_shape=(6, 8, 3), num_features=5)
    x = jax.random.normal(jax.random.key(1), (2, 6, 8, 3))
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    codes = jax.eval_shape(lambda p: network.apply(p, x, method='encode'), params)
    assert codes.mean.shape == codes.log_std.shape == (2, *shape)
    assert network.code_shape == shape
    z = jnp.zeros((2, *shape))
    features = jax.eval_shape(lambda p: network.apply(p, z, method='decode'), params)
    assert features.shape == (2, 6, 8, 5)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ArgumentError, match='^image_size: 6x8 cannot be halved 2 times'):
        assert create('convolutional', image_shape=(6, 8, 3), halvings=2).code_shape


def test_heads_are_bounded_and_hardly_changed_near_zero():
    heads = jnp.array([[-1e6, 0.1, 1e6, -0.1]])
    found = vae.bounded(heads)
    np.testing.assert_allclose(found.mean, [[-5, 0.1]], rtol=1e-3)
    np.testing.assert_allclose(found.log_std, [[5, -0.1]], rtol=1e-3)


def test_densities_of_samples_have_the_closed_form_divergence_in_the_mean():
    """KL(N(m, s^2) || N(0, I)) is the sum of (m^2 + s^2 - 1) / 2 - log s."""
    num = 200_000
    key_codes, key_noise = jax.random.split(jax.random.key(0))
    mean, log_std = jax.random.normal(key_codes, (2, 1, 1, 1, 3))
    codes = Codes(*(jnp.broadcast_to(a, (num, 1, 1, 3)) for a in (mean, log_std)))
    noise = jax.random.normal(key_noise, (num, 1, 1, 3))
    prior = jax.scipy.stats.norm.logpdf(codes.sample(noise)).sum(axis=(1, 2, 3))
    found = np.asarray(codes.log_prob_of(noise) - prior, np.float64)
    expected = np.sum(0.5 * (mean**2 + np.exp(2 * log_std) - 1) - log_std)
    assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(num)


def test_the_density_of_a_sample_is_that_of_scipy():
    codes = Codes(*jax.random.normal(jax.random.key(0), (2, 4, 1, 1, 3)))
    noise = jax.random.normal(jax.random.key(1), codes.mean.shape)
    each = jax.scipy.stats.norm.logpdf(codes.sample(noise), codes.mean, jnp.exp(codes.log_std))
    np.testing.assert_allclose(codes.log_prob_of(noise), each.sum(axis=(1, 2, 3)), rtol=1e-4)

"""Distributions of the values of pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.pixels import COMPONENTS, LOGISTIC_MIXTURE, PIXEL_DISTRIBUTIONS

VALUES = jnp.arange(256, dtype=jnp.uint8).reshape(256, 1, 1, 1)
OF_256 = [name for name, found in PIXEL_DISTRIBUTIONS.items() if not found.is_binary]


def features_of(name, channels=1, scale=2.0, num=1):
    size = PIXEL_DISTRIBUTIONS[name].num_features(channels)
    return scale * jax.random.normal(jax.random.key(0), (num, 1, 1, size))


def probabilities(name, features, pixels):
    features = jnp.broadcast_to(features, (len(pixels), 1, 1, features.shape[-1]))
    return np.exp(PIXEL_DISTRIBUTIONS[name].log_prob(features, pixels))


@pytest.mark.parametrize('name', OF_256)
@pytest.mark.parametrize('scale', [0.1, 2.0, 30.0])
def test_the_probabilities_of_all_values_sum_to_one(name, scale):
    for features in features_of(name, scale=scale, num=4):
        total = probabilities(name, features, VALUES).sum(dtype=np.float64)
        np.testing.assert_allclose(total, 1, atol=2e-5)  # 256 logarithms in float32.


def test_the_probabilities_of_both_values_sum_to_one():
    for features in features_of('bernoulli', num=4):
        total = probabilities('bernoulli', features, VALUES[jnp.array([0, 255])]).sum()
        np.testing.assert_allclose(total, 1, rtol=1e-6)


@pytest.mark.parametrize('red', [0, 100, 255])
def test_green_and_blue_of_a_mixture_sum_to_the_probability_of_red(red):
    """So that those of all colours sum to 1."""
    features = features_of('discretised_logistic_mixture', channels=3)
    green, blue = (values.ravel() for values in np.mgrid[:256, :256])
    colours = np.stack([np.full_like(green, red), green, blue], -1).astype(np.uint8)
    total = probabilities(
        'discretised_logistic_mixture', features, jnp.array(colours)[:, None, None]
    ).sum(dtype=np.float64)
    parts = features[..., :COMPONENTS], features[..., COMPONENTS:].reshape(1, 1, 1, 9, COMPONENTS)
    of_red = jnp.concatenate([parts[0], parts[1][..., 0, :], parts[1][..., 3, :]], -1)
    alone = probabilities('discretised_logistic_mixture', of_red, VALUES[red : red + 1])
    np.testing.assert_allclose(total, alone[0], rtol=1e-4)


@pytest.mark.parametrize('name', OF_256)
@pytest.mark.parametrize('channels', [1, 3])
def test_the_mean_is_the_likeliest_pixel_of_a_narrow_distribution(name, channels):
    distribution = PIXEL_DISTRIBUTIONS[name]
    features = 0.3 * features_of(name, channels, scale=1.0)
    if name == 'discretised_normal':
        features = features.at[..., channels:].set(-3.0)
    else:
        # One component, and narrow.
        sizes = features[..., COMPONENTS:].reshape(-1, COMPONENTS)
        sizes = sizes.at[channels : 2 * channels].set(-4.0)
        logits = jnp.full(COMPONENTS, -50.0).at[3].set(50.0)
        features = jnp.concatenate([logits, sizes.ravel()]).reshape(features.shape)
    middle = jnp.round(255 * distribution.mean(features)).astype(jnp.int32)
    steps = jnp.concatenate([jnp.zeros((1, channels)), jnp.eye(channels), -jnp.eye(channels)])
    near = (middle + 6 * steps[:, None, None].astype(jnp.int32)).astype(jnp.uint8)
    assert probabilities(name, features, near).argmax() == 0


@pytest.mark.parametrize('name', PIXEL_DISTRIBUTIONS)
def test_gradients_are_finite_far_from_the_data(name):
    distribution = PIXEL_DISTRIBUTIONS[name]
    pixels = VALUES[jnp.array([0, 1, 128, 254, 255])]

    def loss(features):
        features = jnp.broadcast_to(features, (len(pixels), 1, 1, features.shape[-1]))
        return distribution.log_prob(features, pixels).sum()

    for scale in (1.0, 10.0):
        for side in (-1, 1):
            features = jnp.full((1, 1, 1, distribution.num_features(1)), side * scale)
            value, gradient = jax.value_and_grad(loss)(features)
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()


def test_a_mixture_has_as_many_numbers_as_published():
    assert [LOGISTIC_MIXTURE.num_features(channels) for channels in (1, 3)] == [30, 100]

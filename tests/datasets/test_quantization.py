"""Images between 8 bits and floats."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datasets import quantization

ALL = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)


@pytest.mark.parametrize('centered', [False, True])
def test_every_value_survives_the_way_there_and_back(centered):
    np.testing.assert_array_equal(
        quantization.to_uint8(quantization.to_float(ALL, centered), centered), ALL
    )
    for seed in range(20):
        x = quantization.dequantize(jax.random.key(seed), ALL, centered)
        # A float32 next to a bin's edge may be scaled into the next bin.
        assert np.mean(quantization.to_uint8(x, centered) != ALL) <= 1 / 256


@pytest.mark.parametrize(('centered', 'low'), [(False, 0.0), (True, -1.0)])
def test_ranges(centered, low):
    x = quantization.to_float(ALL, centered)
    assert (x.min(), x.max()) == (low, 1.0)
    assert quantization.bin_width(centered) * 256 == 1.0 - low


def test_values_out_of_range_are_clipped():
    x = jnp.array([-5.0, 5.0]).reshape(1, 1, 2, 1)
    np.testing.assert_array_equal(quantization.to_uint8(x, True).ravel(), [0, 255])


def test_dequantisation_is_uniform_over_the_bin():
    x = quantization.dequantize(jax.random.key(0), jnp.full((1, 100, 100, 1), 7, jnp.uint8), False)
    offset = x * 256 - 7
    assert offset.min() >= 0
    assert offset.max() <= 1
    # Standard error of the mean 0.0029.
    assert abs(offset.mean() - 0.5) < 4 * 0.0029


def test_half_of_the_images_are_mirrored():
    batch = jnp.broadcast_to(ALL, (400, 16, 16, 1))
    x = quantization.augment(
        jax.random.key(0), batch, random_flip=True, dequantized=False, centered=False
    )
    mirrored = np.asarray(quantization.to_uint8(x, False)[:, 0, 0, 0]) == 15
    # Standard error 0.025.
    assert abs(mirrored.mean() - 0.5) < 4 * 0.025
    assert np.isin(np.asarray(quantization.to_uint8(x, False)[:, 0, 0, 0]), [0, 15]).all()


def test_binarised_pixels_are_on_with_their_value_as_probability():
    num = 20_000
    values = jnp.array([0, 1, 100, 254, 255], jnp.uint8)
    images = jnp.broadcast_to(values, (num, 5))[..., None, None]
    found = np.asarray(quantization.binarize(jax.random.key(0), images))
    assert set(np.unique(found)) == {0, 255}
    share, expected = (found > 0).mean(axis=(0, 2, 3)), values / 255
    # Four standard errors, and none where nothing is random.
    np.testing.assert_array_less(
        np.abs(share - expected), 4 * np.sqrt(expected * (1 - expected) / num) + 1e-6
    )


def test_an_image_is_binarised_alike_in_every_batch():
    image_keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.randint(jax.random.key(1), (3, 4, 4, 1), 0, 256).astype(jnp.uint8)
    together = quantization.binarize_each(image_keys, images)
    alone = quantization.binarize_each(image_keys[1:2], images[1:2])
    np.testing.assert_array_equal(together[1], alone[0])

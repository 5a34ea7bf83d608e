"""FIR resampling against the published code and a direct float64 reference."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import convolution, resampling
from tests.support import golden


@pytest.mark.parametrize(
    ('recorded', 'function'),
    [
        ('upsample_2d', lambda x, w: resampling.upsample_2d(x, (1, 3, 3, 1))),
        ('downsample_2d', lambda x, w: resampling.downsample_2d(x, (1, 3, 3, 1))),
        ('naive_upsample_2d', lambda x, w: resampling.naive_upsample_2d(x)),
        ('naive_downsample_2d', lambda x, w: resampling.naive_downsample_2d(x)),
        ('upsample_conv_2d', lambda x, w: resampling.upsample_conv_2d(x, w, (1, 3, 3, 1))),
        ('conv_downsample_2d', lambda x, w: resampling.conv_downsample_2d(x, w, (1, 3, 3, 1))),
    ],
)
def test_resampling_agrees_with_the_published(recorded, function):
    data = golden.load('resample')
    np.testing.assert_allclose(
        function(jnp.asarray(data['x']), jnp.asarray(data['w'])),
        data[recorded],
        rtol=1e-5,
        atol=1e-5,
    )


def upfirdn(x, kernel, up, down, pad):
    """Zero-insertion, padding, convolution (kernel flipped) and decimation of one axis."""
    spread = np.zeros(len(x) * up)
    spread[::up] = x
    padded = np.concatenate([np.zeros(pad[0]), spread, np.zeros(pad[1])])
    return np.convolve(padded, kernel, 'valid')[::down]


@pytest.mark.parametrize('kernel', [(1, 3, 3, 1), (1, 2, 1), (1, 4, 6, 4, 1), (3, 1, 2, 5)])
@pytest.mark.parametrize('n', [4, 7])
def test_fir_filters_are_upfirdn_along_each_axis(kernel, n):
    """Also for kernels that are odd or not symmetric; kernels sum to 1, and to 2 on the way up."""
    x = jax.random.normal(jax.random.key(0), (1, n + n % 2, 2 * n, 1))
    k = np.array(kernel, np.float64) / np.sum(kernel)
    p = len(k) - 2

    def along_both(function):
        return np.apply_along_axis(function, 2, np.apply_along_axis(function, 1, x))

    up = along_both(lambda v: upfirdn(v, 2 * k, 2, 1, ((p + 1) // 2 + 1, p // 2)))
    np.testing.assert_allclose(resampling.upsample_2d(x, kernel), up, rtol=1e-4, atol=1e-5)
    down = along_both(lambda v: upfirdn(v, k, 1, 2, ((p + 1) // 2, p // 2)))
    np.testing.assert_allclose(resampling.downsample_2d(x, kernel), down, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('size', [1, 3, 5])
def test_fused_repetition_and_convolution_are_one_after_the_other(size):
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    w = jax.random.normal(jax.random.key(1), (size, size, 3, 2))

    def apart(x, w):
        return convolution.conv2d(resampling.naive_upsample_2d(x), w)

    def gradients(function):
        return jax.grad(lambda x, w: jnp.sum(jnp.sin(function(x, w))), (0, 1))(x, w)

    fused = resampling.resampled_conv(resampling.naive_upsample_2d)
    np.testing.assert_allclose(fused(x, w), apart(x, w), rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(gradients(fused), gradients(apart), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('function', [resampling.upsample_2d, resampling.downsample_2d])
def test_resampling_stays_in_bfloat16(function):
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    assert function(x, (1, 3, 3, 1)).dtype == jnp.bfloat16


@pytest.mark.parametrize('size', [(5, 8), (10, 16), (7, 11)])
def test_bilinear_interpolation_is_that_of_jax(size):
    x = jax.random.normal(jax.random.key(0), (2, 5, 8, 3))
    expected = jax.image.resize(x, (2, *size, 3), 'bilinear')
    np.testing.assert_allclose(resampling.resize_bilinear(x, *size), expected, atol=1e-5)


def test_aligned_bilinear_interpolation_keeps_corners_and_is_linear_between():
    x = jax.random.normal(jax.random.key(0), (1, 3, 3, 2))
    y = resampling.resize_bilinear(x, 5, 5, align_corners=True)
    np.testing.assert_allclose(y[:, ::2, ::2], x, atol=1e-6)
    np.testing.assert_allclose(y[:, 1::2, ::2], (x[:, :-1] + x[:, 1:]) / 2, atol=1e-6)
    np.testing.assert_allclose(y[:, 1, 1], x[:, :2, :2].mean((1, 2)), atol=1e-6)


def test_nearest_neighbours_are_those_of_jax():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 3))
    for factor in (1, 2, 4):
        size = (3 * factor, 4 * factor)
        expected = jax.image.resize(x, (2, *size, 3), 'nearest')
        np.testing.assert_array_equal(resampling.resize_nearest(x, *size), expected)


@pytest.mark.parametrize('shape', [(2, 6, 9, 3), (1, 2, 1, 2)])
@pytest.mark.parametrize(
    ('ours', 'theirs'), [(resampling.max_pool, nn.max_pool), (resampling.mean_pool, nn.avg_pool)]
)
def test_pools_and_their_gradients_are_those_of_flax(shape, ours, theirs):
    def with_gradient(pool, x):
        y, transpose = jax.vjp(pool, x)
        return y, *transpose(jnp.sin(y))

    x = jax.random.normal(jax.random.key(0), shape)
    found = jax.jit(lambda x: with_gradient(ours, x))(x)
    expected = jax.jit(lambda x: with_gradient(lambda x: theirs(x, (5, 5), padding='SAME'), x))(x)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)

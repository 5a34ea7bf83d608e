"""Resampling of images by FIR filters, as sums of shifted images, and fused with convolutions.

All of it is "upfirdn": insert zeros, convolve with a kernel along each axis, drop pixels. The
kernel in two dimensions is the outer product of one with itself, so each axis is filtered alone;
and the zeros inserted and the pixels dropped are never computed, because each tap meets the pixels
of one phase only. Pixels outside an image are zero. Kernels are normalised to sum one, and
upsampling multiplies by factor^2, so that constant images stay so. Karras et al. 2020 (StyleGAN2);
Zhang 2019.
"""

import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from models.convolution import Image, Kernel, conv2d, conv2d_stride2, depth_to_space

Taps = Sequence[int | float]
Resized = Float[Array, 'batch _ _ channels']
Convolved = Float[Array, 'batch _ _ features']


def upsample_2d(x: Image, kernel: Taps, factor: int = 2) -> Resized:
    """`x` at `factor` times the size, filtered by `kernel`."""
    excess = len(kernel) - factor
    pad = ((excess + 1) // 2 + factor - 1, excess // 2)
    return _upfirdn_2d(x, _normalised(kernel, factor), up=factor, pad=pad)


def downsample_2d(x: Image, kernel: Taps, factor: int = 2) -> Resized:
    """`x` at 1 / `factor` of the size, filtered by `kernel` before."""
    excess = len(kernel) - factor
    return _upfirdn_2d(x, _normalised(kernel), down=factor, pad=((excess + 1) // 2, excess // 2))


def naive_upsample_2d(x: Image, factor: int = 2) -> Resized:
    """Every pixel repeated `factor` times along both axes."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, factor, w, factor, c))
    return x.reshape(b, factor * h, factor * w, c)


def naive_downsample_2d(x: Image, factor: int = 2) -> Resized:
    """The mean of every cell of `factor` x `factor` pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // factor, factor, w // factor, factor, c).mean((2, 4))


def upsample_conv_2d(x: Image, w: Kernel, kernel: Taps) -> Convolved:
    """The transposed convolution with `w` at stride 2, `w` not flipped; then the FIR filter."""
    excess = len(kernel) - 2 - (w.shape[0] - 1)
    pad = ((excess + 1) // 2 + 1, excess // 2 + 1)
    return _upfirdn_2d(_zero_inserted_conv(x, w), _normalised(kernel, 2), pad=pad)


def conv_downsample_2d(x: Image, w: Kernel, kernel: Taps) -> Convolved:
    """The FIR filter; then the convolution with `w` at stride 2."""
    excess = len(kernel) - 2 + (w.shape[0] - 1)
    x = _upfirdn_2d(x, _normalised(kernel), pad=((excess + 1) // 2, excess // 2))
    return conv2d_stride2(x, w, 'VALID')


def naive_upsample_conv_2d(x: Image, w: Kernel) -> Convolved:
    """conv2d(naive_upsample_2d(x), w) for odd-sized `w`, in less than half of its operations.

    Repeating pixels is filtering by (1, 1), and this acts on `w` as well as on the image.
    """
    if w.shape[:2] == (1, 1):
        return naive_upsample_2d(conv2d(x, w))
    for axis in (0, 1):
        w = _upfirdn(w, [1, 1], axis, pad=(1, 1))
    edges = w.shape[0] // 2 - 1, w.shape[1] // 2 - 1
    y = _zero_inserted_conv(x, w)
    return y[:, edges[0] : edges[0] + 2 * x.shape[1], edges[1] : edges[1] + 2 * x.shape[2]]


def resize_bilinear(x: Image, height: int, width: int, align_corners: bool = False) -> Resized:
    """`x` at this size, or larger, by linear interpolation along both axes.

    Pixels are the centres of their squares, as in `jax.image.resize`; with `align_corners` they are
    points, and the outermost ones of both images coincide.
    """
    for axis, size in ((1, height), (2, width)):
        if x.shape[axis] != size:
            weights = _linear_weights(x.shape[axis], size, align_corners)
            weights = jnp.asarray(weights, jnp.float32)
            y = jnp.tensordot(x, weights, ((axis,), (1,)), precision=lax.Precision.HIGHEST)
            x = jnp.moveaxis(y, -1, axis).astype(x.dtype)
    return x


def resize_nearest(x: Image, height: int, width: int) -> Resized:
    """`x` at a multiple of its size, by repeating pixels."""
    return x if x.shape[1:3] == (height, width) else naive_upsample_2d(x, height // x.shape[1])


def mean_pool(x: Image, size: int = 5) -> Image:
    """The mean over windows of odd `size` around every pixel, in which outer pixels count as 0."""
    return _upfirdn_2d(x, [1 / size] * size, pad=(size // 2, size // 2))


def max_pool(x: Image, size: int = 5) -> Image:
    """The maximum over windows of odd `size` around every pixel."""
    for axis in (1, 2):
        pads = [(0, 0, 0)] * x.ndim
        pads[axis] = (size // 2, size // 2, 0)
        padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), pads)
        windows = (lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(size))
        x = functools.reduce(jnp.maximum, windows)
    return x


def _linear_weights(size, new_size, align_corners):
    """[new_size, size]: of which pixels each new one is the mean."""
    i = np.arange(new_size)
    if align_corners:
        position = i * (size - 1) / max(new_size - 1, 1)
    else:
        position = np.clip((i + 0.5) * size / new_size - 0.5, 0, size - 1)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(size)), 0)


def resampled_conv(resample: Callable[[Image], Resized]) -> Callable[[Image, Kernel], Convolved]:
    """conv2d(resample(x), w) as a function of (x, w), by the cheapest way there is."""
    if resample is naive_upsample_2d:
        return naive_upsample_conv_2d
    return lambda x, w: conv2d(resample(x), w)


def _normalised(kernel, total=1.0):
    return [total * k / sum(kernel) for k in kernel]


def _zero_inserted_conv(x, w):
    """The full correlation of `w` and `x` with a zero between any two pixels.

    Output pixels of one parity meet one quarter of the taps, in a convolution of `x` itself: the
    four of them are one with four times the features. An odd-sized `w` gets a row that meets zeros
    only.
    """
    u, v, c, o = w.shape
    w = jnp.pad(w, ((u % 2, 0), (v % 2, 0), (0, 0), (0, 0)))
    p, q = w.shape[0] // 2, w.shape[1] // 2
    w = w.reshape(p, 2, q, 2, c, o)[:, ::-1, :, ::-1]
    w = w.transpose(0, 2, 4, 1, 3, 5).reshape(p, q, c, 4 * o)
    y = depth_to_space(conv2d(x, w, ((p - 1, p - 1), (q - 1, q - 1))))
    return y[:, : 2 * x.shape[1] + u - 2, : 2 * x.shape[2] + v - 2]


def _upfirdn_2d(x, kernel, up=1, down=1, pad=(0, 0)):
    for axis in (1, 2):
        x = _upfirdn(x, kernel, axis, up, down, pad)
    return x


def _upfirdn(x, kernel, axis, up=1, down=1, pad=(0, 0)):
    """y[n] = sum over j of  kernel[j] z[down n + K - 1 - pad[0] - j], where z[up i] = x[i], else 0.

    Either `up` or `down` is one. Output pixel up i + r is a sum over the taps of its phase r alone.
    """
    size = (x.shape[axis] * up + sum(pad) - len(kernel)) // down + 1
    phases = []
    for r in range(up):
        shifts = [r + len(kernel) - 1 - pad[0] - j for j in range(len(kernel))]
        taps = {shift // up: k for shift, k in zip(shifts, kernel, strict=True) if shift % up == 0}
        phases.append(_sum_of_shifts(x, taps, axis, size // up, down))
    y = jnp.stack(phases, axis + 1) if up > 1 else phases[0]
    return y.reshape(*x.shape[:axis], size, *x.shape[axis + 1 :])


def _sum_of_shifts(x, taps, axis, size, stride):
    """y[i] = sum over s of  taps[s] x[stride i + s], for 0 <= i < size, along `axis`."""
    span = stride * (size - 1) + 1
    low, high = -min(taps, default=0), max(taps, default=0) + span - x.shape[axis]
    pads = [(0, 0, 0)] * x.ndim
    pads[axis] = (low, high, 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), pads)
    zeros = jnp.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
    return sum(
        (k * lax.slice_in_dim(x, low + s, low + s + span, stride, axis) for s, k in taps.items()),
        start=zeros,
    )

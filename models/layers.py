"""The layers that the networks are made of: normalisation, embeddings, attention, initialisers.

Parameters are float32 with the names and shapes of the published checkpoints; `dtype` is what a
layer computes in. Moments, softmax and embeddings are float32 at least, whatever `dtype` is.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Int

from choices import ArgumentError, OneOf, Range, option
from models.convolution import Image, conv2d

Activation = Callable[[Array], Array]
Moments = Float[Array, 'batch 1 1 channels']
Labels = Float[Array, 'batch'] | Int[Array, 'batch']


def initializer(scale: float = 1.0) -> nn.initializers.Initializer:
    """Uniform, variance `scale` over the mean of fan-in and fan-out (DDPM); 0 stands for 1e-10."""
    return nn.initializers.variance_scaling(scale or 1e-10, 'fan_avg', 'uniform')


def dense(features: int, dtype: DTypeLike) -> nn.Dense:
    """A fully connected layer with the initialisation of DDPM."""
    return nn.Dense(features, kernel_init=initializer(), dtype=dtype)


class GroupNorm(nn.Module):
    """act(scale (x - mean) / sqrt(var + epsilon) + bias), moments over pixels and groups of
    channels.

    One affine map per image and channel. By default groups have four channels, or more than that
    where there would be over 32 groups.
    """

    act: Activation = lambda x: x
    epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32
    num_groups: int | None = None

    @nn.compact
    def __call__(self, x: Image) -> Image:
        channels = x.shape[-1]
        num_groups = self.num_groups or min(channels // 4, 32)
        if num_groups == 0 or channels % num_groups:
            known = self.num_groups or '4, and of 32 from 128 on,'
            raise ArgumentError(
                'channels',
                f'{channels} channels do not divide into '
                f'{num_groups or "any"} groups for GroupNorm; multiples of {known} do',
            )
        scale = self.param('scale', nn.initializers.ones, (channels,))
        bias = self.param('bias', nn.initializers.zeros, (channels,))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean, var = group_moments(x, num_groups)
        gain = scale * lax.rsqrt(var + self.epsilon)
        return self.act(x * gain + (bias - mean * gain)).astype(self.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def group_moments(x: Image, num_groups: int) -> tuple[Moments, Moments]:
    """Mean and variance over pixels and groups of channels, each [batch, 1, 1, channels].

    In two passes, because E[x^2] - E[x]^2 loses all digits where |mean| >> std.
    """
    mean = _group_mean(x, num_groups)
    return mean, _group_mean(jnp.square(x - mean), num_groups)


@group_moments.defjvp
def _group_moments_jvp(num_groups, primals, tangents):
    """d mean = E[dx], d var = 2 E[(x - mean) dx]: one pass forwards, and one in the gradient."""
    (x,), (dx,) = primals, tangents
    mean, var = group_moments(x, num_groups)
    d_mean = _group_mean(dx, num_groups)
    return (mean, var), (d_mean, 2 * (_group_mean(x * dx, num_groups) - mean * d_mean))


def _group_mean(x, num_groups):
    """Over pixels, and over groups of channels as one small product: in terms of reshapes it would
    be ten operations, each compiled.
    """
    channels = x.shape[-1]
    means = x.mean((1, 2), keepdims=True)
    if num_groups == channels:
        return means
    group = np.arange(channels) * num_groups // channels
    average = (group[:, None] == group) * (num_groups / channels)
    return jnp.dot(means, average.astype(x.dtype), precision=lax.Precision.HIGHEST)


class NIN(nn.Module):
    """A convolution with 1x1 pixel ("network in network"); parameters `W` and `b`."""

    features: int
    init_scale: float = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, 'batch height width features']:
        w = self.param('W', initializer(self.init_scale), (x.shape[-1], self.features))
        b = self.param('b', nn.initializers.zeros, (self.features,))
        y = conv2d(x.astype(self.dtype), w.astype(self.dtype)[None, None])
        return y + b.astype(self.dtype)


class GaussianFourierProjection(nn.Module):
    """sin and cos of 2 pi W x at random frequencies W ~ N(0, scale^2), which are never trained."""

    size: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, 'batch']) -> Float[Array, 'batch features']:
        frequencies = self.param('W', nn.initializers.normal(self.scale), (self.size,))
        angles = 2 * math.pi * x[:, None] * lax.stop_gradient(frequencies)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def positional_embedding(
    x: Float[Array, 'batch'], size: int, max_period: float = 1e4
) -> Float[Array, 'batch size']:
    """sin and cos of `x` at size // 2 frequencies from 1 to 1 / max_period, and a zero if odd."""
    half = size // 2
    frequencies = jnp.exp(
        -math.log(max_period) / max(half - 1, 1) * jnp.arange(half, dtype=jnp.float32)
    )
    angles = x[:, None] * frequencies
    embedding = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
    return jnp.pad(embedding, ((0, 0), (0, size % 2)))


def level_sigmas(
    labels: Labels, sigma_min: float, sigma_max: float, num_scales: int
) -> Float[Array, 'batch 1 1 1']:
    """Number `labels` of the SMLD levels, which fall geometrically from sigma_max to sigma_min."""
    sigmas = jnp.asarray(np.geomspace(sigma_max, sigma_min, num_scales), jnp.float32)
    return sigmas[labels.astype(jnp.int32)][:, None, None, None]


def residual_sum(x: Array, h: Array, rescale: bool) -> Array:
    """x + h, over sqrt(2) with `rescale`, so that the variance of independent terms stays."""
    return (x + h) * math.sqrt(0.5) if rescale else x + h


@jax.custom_jvp
def swish(x: Array) -> Array:
    """x sigmoid(x)."""
    return x * jax.nn.sigmoid(x)


@swish.defjvp
def _swish_jvp(primals, tangents):
    """The derivative writes sigmoid as tanh: else XLA finds it computed, and keeps it in memory."""
    (x,), (dx,) = primals, tangents
    sigmoid = 0.5 + 0.5 * jnp.tanh(0.5 * x)
    return swish(x), dx * sigmoid * (1 + x * (1 - sigmoid))


ACTIVATIONS: dict[str, Activation] = {
    'elu': nn.elu,
    'relu': nn.relu,
    'lrelu': functools.partial(nn.leaky_relu, negative_slope=0.2),
    'swish': swish,
}

# What layers compute in.
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}

# What the numbers of the networks may be.
WIDTH = Range(1, 2**14)
FEW = Range(1, 64)
POSITIVE = Range(0, without_low=True)


def dtype_option() -> Any:
    """The field `dtype` of every network."""
    return option('float32', 'what is computed in; parameters are float32', DTYPES)


# What products of float32 numbers are, by JAX's names.
PRECISIONS = OneOf(('default', 'high', 'highest'))


def precision_option() -> Any:
    """The field `precision` of every network."""
    return option(
        'default',
        'products of float32 numbers: default (TF32 on a GPU, bfloat16 on a TPU, float32 on a '
        'CPU), high (TF32; on a TPU three products of bfloat16), or highest (float32)',
        PRECISIONS,
    )


def in_precision(call: Callable[..., Array]) -> Callable[..., Array]:
    """The `__call__` of a network, with the products that its field `precision` says, in gradients
    too; 'default' are those of JAX, or of whoever has changed these.
    """

    @functools.wraps(call)
    def wrapped(self, *args, **kwargs):
        if self.precision == 'default':
            return call(self, *args, **kwargs)
        with jax.default_matmul_precision(self.precision):
            return call(self, *args, **kwargs)

    return wrapped


def remat_option() -> Any:
    """The field `remat` of every network."""
    return option(
        False, 'the gradient computes activations inside blocks again: less memory, more time'
    )


def recomputing(
    block: type[nn.Module], remat: bool, static_argnums: tuple[int, ...] = ()
) -> type[nn.Module]:
    """`block`, or with `remat` the same, whose activations the gradient computes once more.

    `static_argnums` counts the arguments of `block.__call__` from `self`. Parameters keep their
    names.
    """
    if not remat:
        return block
    again = nn.remat(block, static_argnums=static_argnums)
    again.__name__ = block.__name__
    return again

"""The normalisations of DDPM and the NCSNs, chosen by name.

InstanceNorm++ (Song & Ermon 2019, appendix A) gives back what instance normalisation takes away:
how the means of an image's channels differ.

    y = gamma ((x - mean) / sqrt(var + eps) + alpha (mean - m) / sqrt(v + eps)) + beta

where m and v are the mean and variance of `mean` over channels. Moments are float32.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Int

from models.convolution import Image
from models.layers import Activation, GroupNorm, group_moments

Means = Float[Array, 'batch 1 1 channels']

EPSILON = 1e-5


def near_one(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Initial scales, N(1, 0.02^2)."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


class InstanceNorm2d(nn.Module):
    """act(scale (x - mean) / sqrt(var + eps) + bias), moments over the pixels of each channel."""

    act: Activation = lambda x: x
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        scale = self.param('scale', nn.initializers.ones, (1, 1, 1, x.shape[-1]))
        bias = self.param('bias', nn.initializers.zeros, (1, 1, 1, x.shape[-1]))
        return self.act(scale * _normalised(x)[0] + bias).astype(self.dtype)


class VarianceNorm2d(nn.Module):
    """act(scale x / sqrt(var + eps)): the mean stays, and there is no bias."""

    act: Activation = lambda x: x
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        scale = self.param('scale', near_one, (1, 1, 1, x.shape[-1]))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        _, var = group_moments(x, x.shape[-1])
        return self.act(scale * lax.rsqrt(var + EPSILON) * x).astype(self.dtype)


class InstanceNorm2dPlus(nn.Module):
    """act of InstanceNorm++; v is the variance of the means of all channels."""

    act: Activation = lambda x: x
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        shape = (1, 1, 1, x.shape[-1])
        alpha, gamma = (self.param(name, near_one, shape) for name in ('alpha', 'gamma'))
        beta = self.param('beta', nn.initializers.zeros, shape)
        h, mean = _normalised(x)
        h = h + alpha * _standardised(mean, mean.var(-1, keepdims=True))
        return self.act(gamma * h + beta).astype(self.dtype)


class ConditionalInstanceNorm2dPlus(nn.Module):
    """act of InstanceNorm++ with a gamma, alpha and beta for each of `num_classes` labels.

    As in the original NCSN, v has Bessel's correction here, and not in `InstanceNorm2dPlus`.
    """

    num_classes: int
    act: Activation = lambda x: x
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image, labels: Int[Array, 'batch']) -> Image:
        embed = nn.Embed(self.num_classes, 3 * x.shape[-1], embedding_init=_near_one_and_zero)
        gamma, alpha, beta = jnp.split(embed(labels)[:, None, None], 3, axis=-1)
        h, mean = _normalised(x)
        unbiased = mean.var(-1, keepdims=True) * (x.shape[-1] / max(x.shape[-1] - 1, 1))
        h = h + alpha * _standardised(mean, unbiased)
        return self.act(gamma * h + beta).astype(self.dtype)


def _near_one_and_zero(key, shape, dtype=jnp.float32):
    """Initial gammas and alphas, then betas."""
    num_classes, size = shape[0], shape[1] // 3
    scales = near_one(key, (num_classes, 2 * size), dtype)
    return jnp.concatenate([scales, jnp.zeros((num_classes, size), dtype)], axis=-1)


def _normalised(x: Image) -> tuple[Image, Means]:
    """(x - mean) / sqrt(var + eps), and mean."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, var = group_moments(x, x.shape[-1])
    return (x - mean) * lax.rsqrt(var + EPSILON), mean


def _standardised(mean, variance):
    return (mean - mean.mean(-1, keepdims=True)) * lax.rsqrt(variance + EPSILON)


NORMALIZATIONS: dict[str, Callable[..., nn.Module]] = {
    'InstanceNorm': InstanceNorm2d,
    'InstanceNorm++': InstanceNorm2dPlus,
    'VarianceNorm': VarianceNorm2d,
    'GroupNorm': functools.partial(GroupNorm, num_groups=32),
}

"""The blocks of NCSN++ and DDPM++: residual blocks of two kinds, resizing layers, skip combiners."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from models import resampling
from models.convolution import Conv, Image
from models.layers import (
    NIN,
    Activation,
    GroupNorm,
    dense,
    initializer,
    residual_sum,
)

Embedding = Float[Array, 'batch embedding']


class ResnetBlockDDPMpp(nn.Module):
    """The residual block of DDPM: two convolutions; levels change size between blocks."""

    features: int
    act: Activation = nn.swish
    dropout: float = 0.1
    rescale: bool = True
    init_scale: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image, temb: Embedding | None = None, train: bool = False) -> Image:
        h = _convolve_twice(self, GroupNorm(self.act, dtype=self.dtype)(x), temb, train)
        if x.shape[-1] != self.features:
            x = NIN(self.features, dtype=self.dtype)(x)
        return residual_sum(x, h, self.rescale)


class ResnetBlockBigGANpp(nn.Module):
    """The residual block of BigGAN, which changes the size of images inside: `resample` does, if given."""

    features: int
    act: Activation = nn.swish
    dropout: float = 0.1
    rescale: bool = True
    init_scale: float = 0.0
    dtype: DTypeLike = jnp.float32
    resample: Callable[[Image], Image] | None = None

    @nn.compact
    def __call__(self, x: Image, temb: Embedding | None = None, train: bool = False) -> Image:
        h = GroupNorm(self.act, dtype=self.dtype)(x)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = _convolve_twice(self, h, temb, train)
        if self.resample is not None or x.shape[-1] != self.features:
            x = Conv(self.features, size=1, kernel_init=initializer(), dtype=self.dtype)(x)
        return residual_sum(x, h, self.rescale)


def _convolve_twice(block, h, temb, train):
    """What both kinds share: convolution, time embedding, normalisation, dropout, convolution."""
    conv = functools.partial(Conv, block.features, dtype=block.dtype)
    h = conv(kernel_init=initializer())(h)
    if temb is not None:
        h += dense(block.features, block.dtype)(block.act(temb))[:, None, None]
    h = GroupNorm(block.act, dtype=block.dtype)(h)
    h = nn.Dropout(block.dropout, deterministic=not train)(h)
    return conv(kernel_init=initializer(block.init_scale))(h)


class Conv2d(nn.Module):
    """A 3x3 convolution fused with a FIR resampling; parameters `weight` and `bias`."""

    features: int
    op: Callable[[Image, Array], Image]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        weight = self.param('weight', initializer(), (3, 3, x.shape[-1], self.features))
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        x = self.op(x.astype(self.dtype), weight.astype(self.dtype))
        return x + bias.astype(self.dtype)


class Upsample(nn.Module):
    """Twice the size: by `fir_kernel`, or by repeating pixels if it is None; with_conv: and a convolution."""

    features: int
    with_conv: bool
    fir_kernel: tuple[float, ...] | None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        if self.fir_kernel is not None and self.with_conv:
            op = functools.partial(resampling.upsample_conv_2d, kernel=self.fir_kernel)
            return Conv2d(self.features, op, self.dtype)(x)
        x = upsampling(self.fir_kernel)(x)
        if self.with_conv:
            x = Conv(self.features, kernel_init=initializer(), dtype=self.dtype)(x)
        return x


class Downsample(nn.Module):
    """Half the size, as `Upsample` doubles it; without FIR a convolution at stride 2 does it alone."""

    features: int
    with_conv: bool
    fir_kernel: tuple[float, ...] | None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        if not self.with_conv:
            return downsampling(self.fir_kernel)(x)
        if self.fir_kernel is None:
            conv = Conv(self.features, stride=2, kernel_init=initializer(), dtype=self.dtype)
            return conv(x)
        op = functools.partial(resampling.conv_downsample_2d, kernel=self.fir_kernel)
        return Conv2d(self.features, op, self.dtype)(x)


def upsampling(fir_kernel: tuple[float, ...] | None) -> Callable[[Image], Image]:
    """Doubles the size of images, without parameters."""
    if fir_kernel is None:
        return resampling.naive_upsample_2d
    return functools.partial(resampling.upsample_2d, kernel=fir_kernel)


def downsampling(fir_kernel: tuple[float, ...] | None) -> Callable[[Image], Image]:
    """Halves the size of images, without parameters."""
    if fir_kernel is None:
        return resampling.naive_downsample_2d
    return functools.partial(resampling.downsample_2d, kernel=fir_kernel)


class Combine(nn.Module):
    """An image, brought to the width of `h` by a 1x1 convolution, and `h`: their sum, or side by side."""

    method: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, image: Image, h: Image) -> Image:
        x = Conv(h.shape[-1], size=1, kernel_init=initializer(), dtype=self.dtype)(image)
        return x + h if self.method == 'sum' else jnp.concatenate([x, h], -1)


class AttnBlockpp(nn.Module):
    """Single-head self-attention over all pixels, with a residual connection."""

    rescale: bool = True
    init_scale: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        b, height, width, c = x.shape
        h = GroupNorm(dtype=self.dtype)(x).reshape(b, height * width, 1, c)
        q, k, v = (NIN(c, dtype=self.dtype)(h) for _ in range(3))
        h = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        return residual_sum(x, NIN(c, self.init_scale, self.dtype)(h), self.rescale)

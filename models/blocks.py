"""The blocks of NCSN++ and DDPM++: residual blocks of two kinds, attention, changes of size."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from models import resampling
from models.convolution import Conv, Image, Kernel, conv2d, conv2d_stride2
from models.dropout import Dropout
from models.layers import (
    NIN,
    Activation,
    GroupNorm,
    dense,
    initializer,
    residual_sum,
    swish,
)

Embedding = Float[Array, 'batch embedding']
Output = Float[Array, 'batch _ _ _']
Tokens = Float[Array, 'batch pixels channels']
Resample = Callable[[Image], Array]


class ResnetBlockDDPMpp(nn.Module):
    """The residual block of DDPM: two convolutions; levels change size between blocks."""

    features: int
    act: Activation = swish
    dropout: float = 0.1
    rescale: bool = True
    init_scale: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image, temb: Embedding | None = None, train: bool = False) -> Output:
        norm = functools.partial(GroupNorm, dtype=self.dtype)
        h = convolve_twice(self, norm, norm(self.act)(x), temb, train)
        if x.shape[-1] != self.features:
            x = NIN(self.features, dtype=self.dtype)(x)
        return residual_sum(x, h, self.rescale)


class ResnetBlockBigGANpp(nn.Module):
    """The residual block of BigGAN: two convolutions, after a change of size if any."""

    features: int
    act: Activation = swish
    dropout: float = 0.1
    rescale: bool = True
    init_scale: float = 0.0
    dtype: DTypeLike = jnp.float32
    resample: Resample | None = None

    @nn.compact
    def __call__(self, x: Image, temb: Embedding | None = None, train: bool = False) -> Output:
        op = conv2d if self.resample is None else resampling.resampled_conv(self.resample)
        norm = functools.partial(GroupNorm, dtype=self.dtype)
        h = convolve_twice(self, norm, norm(self.act)(x), temb, train, op)
        if self.resample is not None or x.shape[-1] != self.features:
            conv = Conv(self.features, 1, op, initializer(), self.dtype)
            x = conv(x)
        return residual_sum(x, h, self.rescale)


def convolve_twice(
    block: nn.Module,
    norm: Callable[[Activation], nn.Module],
    h: Image,
    temb: Embedding | None,
    train: bool,
    op: Callable[[Image, Kernel], Array] = conv2d,
) -> Output:
    """What all kinds share: convolution, time embedding, normalisation, dropout, convolution."""
    h = Conv(block.features, 3, op, initializer(), block.dtype)(h)
    if temb is not None:
        h += dense(block.features, block.dtype)(block.act(temb))[:, None, None]
    h = norm(block.act)(h)
    h = Dropout(block.dropout)(h, train)
    return Conv(block.features, 3, conv2d, initializer(block.init_scale), block.dtype)(h)


def total(a: Embedding | None, b: Embedding | None) -> Embedding | None:
    """a + b, of which either may be None for nothing."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


class AttnBlockpp(nn.Module):
    """Self-attention over all pixels, single-headed, with a residual connection."""

    rescale: bool = True
    init_scale: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        h = attention_residual(GroupNorm(dtype=self.dtype)(x), self.init_scale, self.dtype)
        return residual_sum(x, h, self.rescale)


def attention_residual(h: Image, init_scale: float, dtype: DTypeLike) -> Image:
    """Projections of normalised `h` to queries, keys and values; attention; a projection."""
    b, height, width, c = h.shape
    projections = [NIN(c, dtype=dtype)(h) for _ in range(3)]
    q, k, v = (p.reshape(b, height * width, c) for p in projections)
    return NIN(c, init_scale, dtype)(attend(q, k, v).reshape(h.shape))


def attend(q: Tokens, k: Tokens, v: Tokens) -> Tokens:
    """softmax(q k' / sqrt(channels)) v; on a CPU twice as fast as jax.nn.dot_product_attention."""
    logits = jnp.einsum('bqc,bkc->bqk', q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * q.shape[-1] ** -0.5).astype(v.dtype)
    return jnp.einsum('bqk,bkc->bqc', weights, v)


class Combine(nn.Module):
    """The sum of `h` and an image brought to its width by a 1x1 convolution, or 'cat': both."""

    method: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, image: Image, h: Output) -> Output:
        x = Conv(h.shape[-1], size=1, kernel_init=initializer(), dtype=self.dtype)(image)
        return x + h if self.method == 'sum' else jnp.concatenate([x, h], -1)


class Conv2d(nn.Module):
    """A 3x3 convolution fused with a FIR filter, as `op` does; parameters `weight` and `bias`."""

    features: int
    op: Callable[[Image, Kernel], Array]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Output:
        weight = self.param('weight', initializer(), (3, 3, x.shape[-1], self.features))
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        y = self.op(x.astype(self.dtype), weight.astype(self.dtype))
        return y + bias.astype(self.dtype)


class Upsample(nn.Module):
    """Twice the size, by `fir_kernel` or by repeating pixels; optionally convolved."""

    features: int
    with_conv: bool
    fir_kernel: resampling.Taps | None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Output:
        if not self.with_conv:
            return upsampling(self.fir_kernel)(x)
        if self.fir_kernel is None:
            op = resampling.naive_upsample_conv_2d
            return Conv(self.features, 3, op, initializer(), self.dtype)(x)
        op = functools.partial(resampling.upsample_conv_2d, kernel=self.fir_kernel)
        return Conv2d(self.features, op, self.dtype)(x)


class Downsample(nn.Module):
    """Half the size, by `fir_kernel` or else by averaging; optionally with a convolution.

    Without FIR the convolution is at stride 2, and there is no averaging.
    """

    features: int
    with_conv: bool
    fir_kernel: resampling.Taps | None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Output:
        if not self.with_conv:
            return downsampling(self.fir_kernel)(x)
        if self.fir_kernel is None:
            return Conv(self.features, 3, conv2d_stride2, initializer(), self.dtype)(x)
        op = functools.partial(resampling.conv_downsample_2d, kernel=self.fir_kernel)
        return Conv2d(self.features, op, self.dtype)(x)


def upsampling(fir_kernel: resampling.Taps | None) -> Resample:
    """What doubles the size of images, without parameters."""
    if fir_kernel is None:
        return resampling.naive_upsample_2d
    return functools.partial(resampling.upsample_2d, kernel=fir_kernel)


def downsampling(fir_kernel: resampling.Taps | None) -> Resample:
    """What halves the size of images, without parameters."""
    if fir_kernel is None:
        return resampling.naive_downsample_2d
    return functools.partial(resampling.downsample_2d, kernel=fir_kernel)

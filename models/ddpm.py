"""DDPM: the U-Net of Ho et al. 2020 (appendix B), as Song et al. 2021 train it with every SDE.

down    per level: blocks, each with attention if the level has it; then half the size
middle  block, attention, block
up      per level: one block more, each fed with the output of a block of the way down;
        attention if the level has it; then double the size
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from choices import choose
from models import blocks
from models.convolution import Conv, Image
from models.layers import (
    ACTIVATIONS,
    DTYPES,
    NIN,
    Activation,
    Labels,
    dense,
    initializer,
    level_sigmas,
    positional_embedding,
    recomputing,
)
from models.normalization import NORMALIZATIONS


class ResnetBlockDDPM(nn.Module):
    """The residual block: two convolutions, and the embedding of the noise level between them."""

    features: int
    norm: Callable[..., nn.Module]
    act: Activation
    dropout: float
    dtype: DTypeLike = jnp.float32

    init_scale = 0.0

    @nn.compact
    def __call__(
        self, x: Image, temb: blocks.Embedding | None, train: bool
    ) -> Float[Array, 'batch height width features']:
        h = blocks.convolve_twice(self, self.norm, self.norm(self.act)(x), temb, train)
        return h + (x if x.shape[-1] == self.features else NIN(self.features, dtype=self.dtype)(x))


class AttnBlock(nn.Module):
    """Self-attention over all pixels, single-headed, with a residual connection."""

    norm: Callable[..., nn.Module]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        return x + blocks.attention_residual(self.norm()(x), 0.0, self.dtype)


class DDPM(nn.Module):
    """The network: `model.apply({'params': params}, x, labels)` is float32 of the shape of `x`.

    `labels` say how noisy each image is, by any number; with `scale_by_sigma` it is the index of an
    SMLD level. With `train`, dropout needs a key: `rngs={'dropout': key}`.
    """

    nf: int = 128  # features of the first level
    ch_mult: tuple[int, ...] = (1, 2, 2, 2)  # features of every level, in units of nf
    num_res_blocks: int = 2  # blocks of a level on the way down; one more on the way up
    attn_resolutions: tuple[int, ...] = (16,)  # heights of the levels with attention
    dropout: float = 0.1
    resamp_with_conv: bool = True  # changes of size are convolutions, otherwise without parameters
    conditional: bool = True  # the network sees the noise level
    nonlinearity: str = 'swish'  # elu | relu | lrelu | swish
    normalization: str = 'GroupNorm'  # InstanceNorm | InstanceNorm++ | VarianceNorm | GroupNorm
    centered: bool = True  # images come in [-1, 1]; otherwise in [0, 1], and are mapped here
    scale_by_sigma: bool = False  # the output is over sigma, which falls geometrically ...
    sigma_min: float = 0.01  # ... to sigma_min at label num_scales - 1
    sigma_max: float = 50.0  # ... from sigma_max at label 0 ...
    num_scales: int = 1000
    dtype: str = 'float32'  # float32 | bfloat16: of computation; parameters are float32
    remat: bool = False  # the gradient computes activations inside blocks again: less memory

    integer_labels = False  # any number is a label

    def __post_init__(self):
        for field, known in CHOICES.items():
            choose(known, getattr(self, field), field)
        super().__post_init__()

    def plan(self, height: int, width: int) -> tuple[blocks.Level, ...]:
        """The levels for images of this size, finest first; InputError if there are none."""
        return blocks.unet_levels(self.nf, self.ch_mult, self.attn_resolutions, height, width)

    @nn.compact
    def __call__(self, x: Image, labels: Labels, train: bool = False) -> Image:
        levels = self.plan(*x.shape[1:3])
        temb = self._embed(labels) if self.conditional else None
        skips = self._down(levels, x if self.centered else 2 * x - 1, temb, train)
        h = self._middle(skips[-1], temb, train)
        h = self._up(levels, h, skips, temb, train)
        h = self._norm(ACTIVATIONS[self.nonlinearity])(h)
        y = self._conv(x.shape[-1], 0.0)(h).astype(jnp.float32)
        if not self.scale_by_sigma:
            return y
        return y / level_sigmas(labels, self.sigma_min, self.sigma_max, self.num_scales)

    # The three loops.

    def _down(self, levels, image, temb, train):
        """The outputs that the way up is fed with, finest first."""
        skips = [self._conv(self.nf)(image)]
        for level in levels:
            for _ in range(self.num_res_blocks):
                h = self._block(level.features)(skips[-1], temb, train)
                skips.append(self._attention()(h) if level.attention else h)
            if not level.coarsest:
                skips.append(self._resized(blocks.Downsample, skips[-1]))
        return skips

    def _middle(self, h, temb, train):
        features = h.shape[-1]
        h = self._block(features)(h, temb, train)
        h = self._attention()(h)
        return self._block(features)(h, temb, train)

    def _up(self, levels, h, skips, temb, train):
        for level in reversed(levels):
            for _ in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], -1)
                h = self._block(level.features)(h, temb, train)
            if level.attention:
                h = self._attention()(h)
            if not level.finest:
                h = self._resized(blocks.Upsample, h)
        return h

    # The parts, with the fields of this network.

    def _embed(self, labels):
        temb = positional_embedding(labels.astype(jnp.float32), self.nf)
        temb = dense(4 * self.nf, self.dtype)(temb)
        return dense(4 * self.nf, self.dtype)(ACTIVATIONS[self.nonlinearity](temb))

    def _block(self, features):
        block = recomputing(ResnetBlockDDPM, self.remat, static_argnums=(3,))
        act = ACTIVATIONS[self.nonlinearity]
        return block(features, self._norm, act, self.dropout, self.dtype)

    def _attention(self):
        return AttnBlock(self._norm, self.dtype)

    def _resized(self, change: type[nn.Module], h: Image) -> Image:
        return change(h.shape[-1], self.resamp_with_conv, fir_kernel=None, dtype=self.dtype)(h)

    def _conv(self, features, init_scale=1.0):
        return Conv(features, kernel_init=initializer(init_scale), dtype=self.dtype)

    @property
    def _norm(self):
        return functools.partial(NORMALIZATIONS[self.normalization], dtype=self.dtype)


CHOICES = {'nonlinearity': ACTIVATIONS, 'normalization': NORMALIZATIONS, 'dtype': DTYPES}

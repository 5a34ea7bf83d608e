"""DDPM: the U-Net of Ho et al. 2020 (appendix B), as Song et al. 2021 train it with every SDE."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from choices import check_options, option
from models import blocks
from models.convolution import Image
from models.layers import (
    ACTIVATIONS,
    NIN,
    Activation,
    Labels,
    in_precision,
    level_sigmas,
    positional_embedding,
    recomputing,
)
from models.normalization import NORMALIZATIONS
from models.unet import UNet


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


class DDPM(UNet):
    """The network: `model.apply({'params': params}, x, labels)` is float32 of the shape of `x`.

    `labels` say how noisy each image is, by any number; with `scale_by_sigma` it is the index of an
    SMLD level. With `train`, dropout needs a key: `rngs={'dropout': key}`.
    """

    normalization: str = option('GroupNorm', 'what features are normalised by', NORMALIZATIONS)

    def __post_init__(self):
        check_options(self)
        super().__post_init__()

    @nn.compact
    @in_precision
    def __call__(self, x: Image, labels: Labels, train: bool = False) -> Image:
        levels = self.plan(*x.shape[1:3])
        temb = self._embed(labels) if self.conditional else None
        skips = self._down(levels, x if self.centered else 2 * x - 1, temb, train)
        h = self._middle(skips[-1], temb, train)
        h, _ = self._up(levels, h, skips, x.shape[-1], temb, train)
        h = self._norm(ACTIVATIONS[self.nonlinearity])(h)
        y = self._conv(x.shape[-1], 0.0)(h).astype(jnp.float32)
        if not self.scale_by_sigma:
            return y
        return y / level_sigmas(labels, self.sigma_min, self.sigma_max, self.num_scales)

    # The parts, with the fields of this network.

    def _embed(self, labels):
        return self._embed_features(positional_embedding(labels.astype(jnp.float32), self.nf))

    def _block(self, features):
        block = recomputing(ResnetBlockDDPM, self.remat, static_argnums=(3,))
        act = ACTIVATIONS[self.nonlinearity]
        return block(features, self._norm, act, self.dropout, self.dtype)

    def _attention(self, features):
        return AttnBlock(self._norm, self.dtype)

    def _halve(self, h, temb, train):
        return blocks.Downsample(h.shape[-1], self.resamp_with_conv, None, self.dtype)(h)

    def _double(self, h, temb, train):
        return blocks.Upsample(h.shape[-1], self.resamp_with_conv, None, self.dtype)(h)

    @property
    def _norm(self):
        return functools.partial(NORMALIZATIONS[self.normalization], dtype=self.dtype)

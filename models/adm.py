"""ADM, the U-Net of Dhariwal & Nichol 2021 (section 3), as EDM has it (Karras et al. 2022).

What it adds to the U-Net of DDPM: residual blocks, which change the size inside, get a scale and a
shift of their normalised features from the embedding; attention has several heads, and follows
every block of its levels; classes are part of the embedding.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from choices import ArgumentError, OneOf, check_options, option
from models import blocks, resampling
from models.convolution import Conv, Image, conv2d
from models.dropout import Dropout
from models.layers import (
    ACTIVATIONS,
    WIDTH,
    Activation,
    GroupNorm,
    Labels,
    in_precision,
    level_sigmas,
    recomputing,
)
from models.unet import Classes, ClassUNet

EPSILON = 1e-5  # of normalisations
# As PyTorch begins: uniform up to 1 / sqrt(fan-in). Biases begin at 0.
UNIFORM = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
ZEROS = nn.initializers.zeros


class ResnetBlockADM(nn.Module):
    """The residual block: two convolutions, after a change of size if any.

    The embedding gives the scale and the shift of the second normalisation. The shortcut is
    convolved where the number of features changes, and with `project` also where the size does.
    """

    features: int
    act: Activation
    dropout: float
    dtype: DTypeLike = jnp.float32
    resample: blocks.Resample | None = None
    project: bool = False

    @nn.compact
    def __call__(self, x: Image, temb: blocks.Embedding | None, train: bool) -> blocks.Output:
        op = conv2d if self.resample is None else resampling.resampled_conv(self.resample)
        h = GroupNorm(self.act, EPSILON, self.dtype)(x)
        h = Conv(self.features, 3, op, UNIFORM, self.dtype)(h)
        scale, shift = self._modulation(temb)
        h = self.act(GroupNorm(epsilon=EPSILON, dtype=self.dtype)(h) * (1 + scale) + shift)
        h = Dropout(self.dropout)(h, train)
        h = Conv(self.features, 3, conv2d, ZEROS, self.dtype)(h)
        if x.shape[-1] != self.features or (self.resample and self.project):
            return Conv(self.features, 1, op, UNIFORM, self.dtype)(x) + h
        return (x if self.resample is None else self.resample(x)) + h

    def _modulation(self, temb):
        if temb is None:
            return 0, 0
        dense = nn.Dense(2 * self.features, kernel_init=UNIFORM, dtype=self.dtype)
        return jnp.split(dense(self.act(temb))[:, None, None], 2, axis=-1)


class AttnBlockADM(nn.Module):
    """Self-attention over all pixels with several heads, and a residual connection.

    One convolution makes the queries, keys and values, which of each feature stand side by side.
    """

    num_heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        b, height, width, c = x.shape
        h = GroupNorm(epsilon=EPSILON, dtype=self.dtype)(x)
        h = Conv(3 * c, 1, conv2d, UNIFORM, self.dtype)(h)
        h = h.reshape(b, height * width, self.num_heads, c // self.num_heads, 3)
        # Each head of each image is one of a larger batch.
        q, k, v = h.transpose(4, 0, 2, 1, 3).reshape(3, -1, height * width, c // self.num_heads)
        h = blocks.attend(q, k, v).reshape(b, self.num_heads, height * width, -1)
        h = h.transpose(0, 2, 1, 3).reshape(x.shape)
        return x + Conv(c, 1, conv2d, ZEROS, self.dtype)(h)


class ADM(ClassUNet):
    """The network: `model.apply({'params': params}, x, labels)` is float32 of the shape of `x`.

    `labels` say how noisy each image is: a positive number, of whose logarithm the embedding is
    made, or any number with the 'positional' embedding. `classes` are in [0, num_classes), or -1
    for none. With `train`, dropout needs a key: `rngs={'dropout': key}`.
    """

    resamp_with_conv: bool = option(
        False, 'where the size changes, the shortcut is a convolution; otherwise without parameters'
    )
    channels_per_head: int = option(
        64, 'features of a head of the attention; those that are left over are shared', WIDTH
    )
    embedding_type: str = option(
        'log_positional',
        'how the noise level is embedded; log_positional takes its logarithm',
        OneOf(('positional', 'log_positional')),
    )

    attends_after_each = True

    def __post_init__(self):
        check_options(self)
        super().__post_init__()

    def plan(self, height, width):
        """The levels, as of every U-Net; raises ArgumentError too if features make no heads."""
        levels = super().plan(height, width)
        for level in levels:
            heads = level.features // self.channels_per_head
            if (level.attention or level.coarsest) and (not heads or level.features % heads):
                raise ArgumentError(
                    'channels_per_head',
                    f'{self.channels_per_head}, and attention is over {level.features} features, '
                    f'which do not divide into {heads or "any"} heads',
                )
        return levels

    @nn.compact
    @in_precision
    def __call__(
        self, x: Image, labels: Labels, classes: Classes | None = None, train: bool = False
    ) -> Image:
        levels = self.plan(*x.shape[1:3])
        temb = self._embed(labels, classes)
        skips = self._down(levels, x if self.centered else 2 * x - 1, temb, train)
        h = self._middle(skips[-1], temb, train)
        h, _ = self._up(levels, h, skips, x.shape[-1], temb, train)
        h = GroupNorm(ACTIVATIONS[self.nonlinearity], EPSILON, self.dtype)(h)
        y = Conv(x.shape[-1], kernel_init=ZEROS, dtype=self.dtype)(h).astype(jnp.float32)
        return y / self._sigma(labels) if self.scale_by_sigma else y

    # The parts, with the fields of this network.

    def _embed(self, labels, classes):
        """The embedding of noise level and class; None if the network sees neither."""
        is_log = self.embedding_type == 'log_positional'
        labels = labels.astype(jnp.float32)
        features = cosine_embedding(jnp.log(labels) if is_log else labels, self.nf)
        temb = self._embed_features(features) if self.conditional else None
        size, init = self.embedding_mult * self.nf, nn.initializers.normal(1.0)
        of_class = self._embed_classes(classes, labels, size, init)
        return blocks.total(temb, of_class)

    def _sigma(self, labels):
        if self.embedding_type == 'log_positional':
            return labels[:, None, None, None]
        return level_sigmas(labels, self.sigma_min, self.sigma_max, self.num_scales)

    def _first_features(self, levels):
        return levels[0].features

    def _block(self, features, resample=None):
        block = recomputing(ResnetBlockADM, self.remat, static_argnums=(3,))
        act = ACTIVATIONS[self.nonlinearity]
        return block(features, act, self.dropout, self.dtype, resample, self.resamp_with_conv)

    def _halve(self, h, temb, train):
        return self._block(h.shape[-1], resampling.naive_downsample_2d)(h, temb, train)

    def _double(self, h, temb, train):
        return self._block(h.shape[-1], resampling.naive_upsample_2d)(h, temb, train)

    def _attention(self, features):
        return AttnBlockADM(features // self.channels_per_head, self.dtype)

    def _conv(self, features):
        return Conv(features, kernel_init=UNIFORM, dtype=self.dtype)

    def _dense(self, features):
        return nn.Dense(features, kernel_init=UNIFORM, dtype=self.dtype)


def cosine_embedding(x: Float[Array, 'batch'], size: int) -> Float[Array, 'batch size']:
    """cos and sin of `x` at size // 2 frequencies from 1 down, which would end at 1 / 10,000 with
    one more, and a zero if `size` is odd.
    """
    half = size // 2
    frequencies = jnp.exp(-math.log(1e4) / max(half, 1) * jnp.arange(half, dtype=jnp.float32))
    angles = x[:, None] * frequencies
    embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
    return jnp.pad(embedding, ((0, 0), (0, size % 2)))

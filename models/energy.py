"""Energies: networks whose output is one number for each state, log p(x) but for a constant.

Their gradient in x is a score, and training takes a gradient of that: activations are smooth,
because of networks of linear pieces all second derivatives are zero where they exist, and the part
of an objective that has them is lost. The output is a quadratic form of the last features, as a
log density is of its state far out, where linear networks would not fall fast enough.

U-Nets become energies by parameterization.ENERGIES; these here are smaller and simpler.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from choices import ArgumentError, Range, check_options, option
from models.convolution import Conv, Image, conv2d_stride2
from models.layers import (
    DTYPES,
    FEW,
    WIDTH,
    Labels,
    dtype_option,
    in_precision,
    positional_embedding,
    precision_option,
    recomputing,
    remat_option,
    swish,
)

Features = Float[Array, 'batch *pixels features']
NoiseLevel = Float[Array, 'batch embedding']


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) - log 2, which is 0 at 0."""
    return jax.nn.softplus(x) - math.log(2)


SMOOTH_ACTIVATIONS = {'swish': swish, 'softplus': softplus}


def activation_option() -> Any:
    """The field `nonlinearity` of energies."""
    return option('swish', 'activation', SMOOTH_ACTIVATIONS)


class EnergyMLP(nn.Module):
    """A multi-layer perceptron: `model.apply({'params': params}, x, labels)` is one number for each
    state of `x`, [batch], in float32.

    `labels` say how noisy each state is, as positions between 0 and about 1000.
    """

    width: int = option(256, 'features of every layer', WIDTH)
    num_layers: int = option(3, 'layers that see the noise level', FEW)
    embedding_size: int = option(64, 'sines and cosines of the noise level', WIDTH)
    nonlinearity: str = activation_option()
    dtype: str = dtype_option()
    precision: str = precision_option()
    remat: bool = remat_option()

    # Not for users: an experiment fills this.
    centered: bool = True  # states come in [-1, 1] or as they are; otherwise in [0, 1]

    integer_labels = False  # any number is a label

    def __post_init__(self):
        check_options(self)
        super().__post_init__()

    def plan(self, height: int, width: int) -> None:
        """Any size goes."""

    @nn.compact
    @in_precision
    def __call__(
        self, x: Float[Array, 'batch ...'], labels: Labels, train: bool = False
    ) -> Float[Array, 'batch']:
        dtype, temb = DTYPES[self.dtype], _embedding(labels, self.embedding_size)
        h = (x if self.centered else 2 * x - 1).reshape(len(x), -1)
        layer = recomputing(_Layer, self.remat)
        for _ in range(self.num_layers):
            h = layer(self.width, self.nonlinearity, dtype)(h, temb)
        return _QuadraticForm(self.width, dtype)(h)


class Size(NamedTuple):
    """Height, width and features of the blocks of one size."""

    height: int
    width: int
    features: int


class EnergyConv(nn.Module):
    """A convolutional network without normalisation, which halves images between its levels:
    `model.apply({'params': params}, x, labels)` is one number for each image of `x`, [batch], in
    float32.

    `labels` say how noisy each image is, as positions between 0 and about 1000. The output is a sum
    over the pixels of the last level.
    """

    nf: int = option(32, 'features of the first level', WIDTH)
    ch_mult: tuple[int, ...] = option(
        (1, 2, 2), 'features of every level, in units of nf', FEW, length=Range(1, 14)
    )
    num_res_blocks: int = option(1, 'blocks of a level', FEW)
    embedding_size: int = option(64, 'sines and cosines of the noise level', WIDTH)
    nonlinearity: str = activation_option()
    dtype: str = dtype_option()
    precision: str = precision_option()
    remat: bool = remat_option()

    # Not for users: an experiment fills this.
    centered: bool = True  # images come in [-1, 1]; otherwise in [0, 1], and are mapped here

    integer_labels = False  # any number is a label

    def __post_init__(self):
        check_options(self)
        super().__post_init__()

    def plan(self, height: int, width: int) -> tuple[Size, ...]:
        """The sizes for images of this size, finest first.

        Raises ArgumentError if images cannot be halved so often.
        """
        last = len(self.ch_mult) - 1
        if height % 2**last or width % 2**last:
            raise ArgumentError(
                'ch_mult',
                f'{last + 1} levels need height and width to be multiples of {2**last}, and images '
                f'are {height}x{width}',
            )
        return tuple(
            Size(height >> i, width >> i, self.nf * multiple)
            for i, multiple in enumerate(self.ch_mult)
        )

    @nn.compact
    @in_precision
    def __call__(self, x: Image, labels: Labels, train: bool = False) -> Float[Array, 'batch']:
        dtype, levels = DTYPES[self.dtype], self.plan(*x.shape[1:3])
        temb = _embedding(labels, self.embedding_size)
        h = Conv(levels[0].features, dtype=dtype)(x if self.centered else 2 * x - 1)
        block = recomputing(_Block, self.remat)
        for i, level in enumerate(levels):
            if i:
                h = Conv(level.features, op=conv2d_stride2, dtype=dtype)(h)
            for _ in range(self.num_res_blocks):
                h = block(level.features, self.nonlinearity, dtype)(h, temb)
        return _QuadraticForm(levels[-1].features, dtype)(SMOOTH_ACTIVATIONS[self.nonlinearity](h))


def _embedding(labels: Labels, size: int) -> NoiseLevel:
    return positional_embedding(labels.astype(jnp.float32), size)


class _Layer(nn.Module):
    """One layer, which sees the noise level."""

    width: int
    nonlinearity: str
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, h: Float[Array, 'batch inputs'], temb: NoiseLevel
    ) -> Float[Array, 'batch outputs']:
        h = nn.Dense(self.width, dtype=self.dtype)(h) + nn.Dense(self.width, dtype=self.dtype)(temb)
        return SMOOTH_ACTIVATIONS[self.nonlinearity](h)


class _Block(nn.Module):
    """Two convolutions, of which the first sees the noise level, around which the input goes too.
    The second begins small, so that blocks do not add up to large features at first."""

    features: int
    nonlinearity: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, h: Image, temb: NoiseLevel) -> Image:
        act = SMOOTH_ACTIVATIONS[self.nonlinearity]
        r = Conv(self.features, dtype=self.dtype)(act(h))
        r = r + nn.Dense(self.features, dtype=self.dtype)(temb)[:, None, None]
        small = nn.initializers.variance_scaling(0.1, 'fan_in', 'normal')
        return h + Conv(self.features, kernel_init=small, dtype=self.dtype)(act(r))


class _QuadraticForm(nn.Module):
    """(A h) . (B h) + c . h^2 + d . h, summed over pixels: the head of deep energies in Pang et al.
    2020 (arXiv:2007.03317), with matrices for its two vectors. B, c and d are zero at first."""

    rank: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, h: Features) -> Float[Array, 'batch']:
        def linear(features, first, inputs, name):
            layer = nn.Dense(features, False, self.dtype, kernel_init=first, name=name)
            return layer(inputs).astype(jnp.float32)

        zeros = nn.initializers.zeros
        product = linear(self.rank, nn.initializers.lecun_normal(), h, 'a') * linear(
            self.rank, zeros, h, 'b'
        )
        of_squares, of_features = linear(1, zeros, h**2, 'c'), linear(1, zeros, h, 'd')
        total = product.sum(-1) + of_squares[..., 0] + of_features[..., 0]
        return total.reshape(len(h), -1).sum(axis=1)

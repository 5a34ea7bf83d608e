"""A wide ResNet that is told how noisy its images are (Song et al. 2021, appendix I.1).

    stem    3x3 convolution to 16 features
    body    three groups of blocks, of 16, 32 and 64 times `channel_multiplier` features, the second
            and third of which begin by halving height and width
    head    the mean over pixels, and a score for each class

The embedding of the noise level enters every block. Its depth is 6 blocks_per_group + 4, in the
count of Zagoruyko & Komodakis 2016: the published classifier of CIFAR-10 is WRN-28-10.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from choices import ArgumentError, Range, check_options, option
from models.convolution import Conv, Image, conv2d, conv2d_stride2
from models.layers import (
    DTYPES,
    FEW,
    POSITIVE,
    WIDTH,
    GaussianFourierProjection,
    GroupNorm,
    dtype_option,
    in_precision,
    precision_option,
    recomputing,
    remat_option,
    swish,
)
from models.resampling import naive_downsample_2d

Sigmas = Float[Array, 'batch']
Embedding = Float[Array, 'batch embedding']
Logits = Float[Array, 'batch classes']

STEM_FEATURES = 16
HALVINGS = 2


class WideResnet(nn.Module):
    """The network: `model.apply({'params': params}, x, sigmas)` are float32 logits of the classes.

    `sigmas` are the standard deviations of the noise in x = x_0 + sigma noise. Every image is
    brought to mean 0 and variance 1, after its channels, if they differ in the data, by
    `channel_mean` and `channel_std`. There is no dropout; `train` is what other networks have.
    """

    blocks_per_group: int = option(4, 'blocks of each of the three groups', FEW)
    channel_multiplier: int = option(10, 'features of the groups, in units of 16, 32 and 64', FEW)
    num_classes: int = option(10, 'classes that are told apart', Range(1, 10**6))
    embedding_size: int = option(
        128, 'frequencies of log(sigma); the embedding has four times as many', WIDTH
    )
    fourier_scale: float = option(16.0, 'standard deviation of these frequencies', POSITIVE)
    channel_mean: tuple[float, ...] = option(
        (), 'what is taken from each channel of images, in the range of the input; (): 0'
    )
    channel_std: tuple[float, ...] = option(
        (), 'what each channel of images is divided by; (): 1', POSITIVE
    )
    dtype: str = dtype_option()
    precision: str = precision_option()
    remat: bool = remat_option()

    def __post_init__(self):
        check_options(self)
        super().__post_init__()

    def plan(self, height: int, width: int) -> tuple[int, ...]:
        """The features of the groups; raises ArgumentError for images that they cannot halve."""
        if height % 2**HALVINGS or width % 2**HALVINGS:
            raise ArgumentError(
                'image_size',
                f'{height}x{width} cannot be halved {HALVINGS} times; multiples of {2**HALVINGS} '
                'can',
            )
        return tuple(STEM_FEATURES * 2**i * self.channel_multiplier for i in range(HALVINGS + 1))

    @nn.compact
    @in_precision
    def __call__(self, x: Image, sigmas: Sigmas, train: bool = False) -> Logits:
        dtype = DTYPES[self.dtype]
        temb = self._embed(jnp.log(sigmas))
        h = standardize(self._normalized(x))
        h = kernel3x3(STEM_FEATURES, dtype, name='init_conv')(h)
        for i, features in enumerate(self.plan(*x.shape[1:3])):
            h = WideResnetGroup(
                features, self.blocks_per_group, first=i == 0, dtype=dtype, remat=self.remat
            )(h, temb)
        h = activation('pre-pool-bn', jnp.float32)(h).mean((1, 2))
        # For those who compare images by it; without mutable=['features'] it goes nowhere.
        self.sow('features', 'pooled', h)
        return nn.Dense(self.num_classes, kernel_init=uniform_by_classes)(h)

    def _normalized(self, x):
        x = x - jnp.array(self.channel_mean) if self.channel_mean else x
        return x / jnp.array(self.channel_std) if self.channel_std else x

    def _embed(self, log_sigma):
        temb = GaussianFourierProjection(self.embedding_size, self.fourier_scale)(log_sigma)
        temb = nn.Dense(4 * self.embedding_size)(temb)
        return nn.Dense(4 * self.embedding_size)(swish(temb))


def standardize(x: Image) -> Image:
    """Every image less its mean, over its standard deviation, or over 1 / sqrt(values) if that is
    larger."""
    x = x - x.mean((1, 2, 3), keepdims=True)
    variance = jnp.square(x).mean((1, 2, 3), keepdims=True)
    # Like this, a constant image has a gradient.
    return x * jax.lax.rsqrt(jnp.maximum(variance, 1 / math.prod(x.shape[1:])))


class WideResnetGroup(nn.Module):
    """Blocks of one size; all groups but the first halve it."""

    features: int
    num_blocks: int
    first: bool
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: Image, temb: Embedding) -> Float[Array, 'batch _ _ features']:
        block = recomputing(WideResnetBlock, self.remat)
        for i in range(self.num_blocks):
            halve, after_stem = i == 0 and not self.first, i == 0 and self.first
            x = block(self.features, halve, after_stem, self.dtype)(x, temb)
        return x


class WideResnetBlock(nn.Module):
    """x + conv(act(conv(act(x)) + dense(temb))), with zeros for features that x does not have.

    `activate_residual` has act(x) in place of x, in the sum too.
    """

    features: int
    halve: bool = False
    activate_residual: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image, temb: Embedding) -> Float[Array, 'batch _ _ features']:
        h = activation('init_bn', self.dtype)(x)
        x = h if self.activate_residual else x
        op = conv2d_stride2 if self.halve else conv2d
        h = kernel3x3(self.features, self.dtype, op, name='conv1')(h)
        h = h + nn.Dense(self.features, dtype=self.dtype)(swish(temb))[:, None, None]
        h = activation('bn_2', self.dtype)(h)
        h = kernel3x3(self.features, self.dtype, name='conv2')(h)
        x = naive_downsample_2d(x) if self.halve else x
        return jnp.pad(x, ((0, 0),) * 3 + ((0, self.features - x.shape[-1]),)) + h


def activation(name: str, dtype: DTypeLike) -> GroupNorm:
    """GroupNorm and ReLU. The published names of its parameters say batch norm, which it is not."""
    return GroupNorm(nn.relu, 1e-5, dtype, name=name)


def kernel3x3(features: int, dtype: DTypeLike, op=conv2d, name: str | None = None) -> Conv:
    """A convolution without bias, initialised for ReLU (He et al. 2015, fan-out)."""
    kernel_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
    return Conv(features, 3, op, kernel_init, dtype, bias_init=None, name=name)


def uniform_by_classes(key, shape, dtype=jnp.float32):
    """Uniform on +-1 / sqrt(classes), as in AutoAugment."""
    bound = 1 / math.sqrt(shape[-1])
    return jax.random.uniform(key, shape, dtype, -bound, bound)

"""Variational autoencoders: from images to normal distributions of codes, and from codes to the
parameters of distributions of pixels (pixels.py).

`encode(x) -> Codes` and `decode(z)`, where codes are states [batch, height, width, channels] like
images, so that every score network, sampler and likelihood takes them: those of 'mlp' are 1 x 1
with all numbers as channels, those of 'convolutional' maps at the size of its last level. Both
heads are bounded, 5 tanh(. / 5), so that no code is so sure or so far away that training ends
(Vahdat and Kautz 2020, arXiv:2007.03898).
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from choices import ArgumentError, Range, check_options, option
from models import blocks
from models.convolution import Conv, Image, conv2d
from models.layers import FEW, WIDTH, GroupNorm, initializer, swish
from shapes import ImageShape, PerImage, State

BOUND = 5.0


class Codes(NamedTuple):
    """N(mean, exp(log_std)^2) in each number of the codes of a batch."""

    mean: State
    log_std: State

    def sample(self, noise: State) -> State:
        """The codes that standard normal noise makes."""
        return self.mean + jnp.exp(self.log_std) * noise

    def log_prob_of(self, noise: State) -> PerImage:
        """The log-density of `sample(noise)`, in nats."""
        each = -0.5 * noise**2 - self.log_std - 0.5 * math.log(2 * math.pi)
        return each.reshape(len(each), -1).sum(axis=1)


class Autoencoder(nn.Module):
    """What both kinds have: the shape of images, and how many numbers a pixel's distribution needs
    of the decoder. An experiment fills both.
    """

    code_channels: int = option(32, 'channels of the codes', WIDTH)

    image_shape: ImageShape = (28, 28, 1)
    num_features: int = 1

    def __post_init__(self):
        check_options(self)
        super().__post_init__()

    def __call__(self, x: Image) -> Array:
        """The decoded mean of the codes: what makes all parameters."""
        return self.decode(self.encode(x).mean)

    @property
    def code_shape(self) -> ImageShape:
        """Height, width and channels of the codes of an image."""
        raise TypeError(f'{type(self).__name__} does not define code_shape')


def bounded(heads: Float[Array, '*shape features']) -> Codes:
    """Codes of features, half of which are means and half logarithms of standard deviations."""
    return Codes(*jnp.split(BOUND * jnp.tanh(heads / BOUND), 2, axis=-1))


class MLPAutoencoder(Autoencoder):
    """Fully connected layers: codes of 1 x 1 pixel, which say nothing of where in the image."""

    width: int = option(400, 'features of the hidden layers', WIDTH)
    num_layers: int = option(2, 'hidden layers of the encoder, and of the decoder', FEW)

    def setup(self):
        def hidden():
            return [nn.Dense(self.width) for _ in range(self.num_layers)]

        self.encoder, self.head = hidden(), nn.Dense(2 * self.code_channels)
        height, width, _ = self.image_shape
        self.decoder, self.out = hidden(), nn.Dense(height * width * self.num_features)

    @property
    def code_shape(self) -> ImageShape:
        """1 x 1 pixel."""
        return 1, 1, self.code_channels

    def encode(self, x: Image) -> Codes:
        """The distribution of codes of each image."""
        h = x.reshape(len(x), -1)
        for layer in self.encoder:
            h = swish(layer(h))
        return bounded(self.head(h).reshape(len(x), 1, 1, -1))

    def decode(self, z: State) -> Array:
        """The features of every pixel's distribution."""
        h = z.reshape(len(z), -1)
        for layer in self.decoder:
            h = swish(layer(h))
        return self.out(h).reshape(len(z), *self.image_shape[:2], self.num_features)


class ConvolutionalAutoencoder(Autoencoder):
    """Residual cells: codes are maps, which halve the size of images `halvings` times."""

    nf: int = option(32, 'features at the size of images; twice as many after each halving', WIDTH)
    halvings: int = option(2, 'how often codes halve the size of images', Range(1, 6))
    cells: int = option(1, 'residual cells at each size, on either way', FEW)

    def setup(self):
        widths = [self.nf * 2**level for level in range(self.halvings + 1)]
        self.first = _convolution(widths[0])
        self.encoder = [
            *self._cells(widths[0]),
            *(
                layer
                for width in widths[1:]
                for layer in (blocks.Downsample(width, True, None), *self._cells(width))
            ),
        ]
        self.head = _convolution(2 * self.code_channels)
        self.last_norm_encoder = GroupNorm(swish)
        self.from_codes = _convolution(widths[-1])
        self.decoder = [
            *self._cells(widths[-1]),
            *(
                layer
                for width in widths[-2::-1]
                for layer in (blocks.Upsample(width, True, None), *self._cells(width))
            ),
        ]
        self.last_norm_decoder = GroupNorm(swish)
        self.out = _convolution(self.num_features)

    def _cells(self, width):
        return [blocks.ResnetBlockDDPMpp(width, dropout=0.0) for _ in range(self.cells)]

    @property
    def code_shape(self) -> ImageShape:
        """The last size; raises ArgumentError for images that cannot be halved so often."""
        height, width, _ = self.image_shape
        factor = 2**self.halvings
        if height % factor or width % factor:
            raise ArgumentError(
                'image_size',
                f'{height}x{width} cannot be halved {self.halvings} times; multiples of {factor} '
                'can',
            )
        return height // factor, width // factor, self.code_channels

    def encode(self, x: Image) -> Codes:
        """The distribution of codes of each image."""
        h = self.first(x)
        for layer in self.encoder:
            h = layer(h)
        return bounded(self.head(self.last_norm_encoder(h)))

    def decode(self, z: State) -> Array:
        """The features of every pixel's distribution."""
        h = self.from_codes(z)
        for layer in self.decoder:
            h = layer(h)
        return self.out(self.last_norm_decoder(h))


def _convolution(features: int) -> Conv:
    return Conv(features, 3, conv2d, initializer(), jnp.float32)


AUTOENCODERS = {'mlp': MLPAutoencoder, 'convolutional': ConvolutionalAutoencoder}

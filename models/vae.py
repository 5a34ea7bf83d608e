"""Variational autoencoders: from images to latents and back, to the parameters of distributions of
pixels (pixels.py).

`autoencoder(x, noises) -> Passage(latents, features)` goes there and back, `decode(zs)` back alone.
Latents are states [batch, height, width, channels] like images, so that every score network,
sampler and likelihood takes them. Those of the first, the coarsest size are the codes, which have a
prior that is learned; those of finer sizes, if there are any, have N(0, I).

A size may have several groups of latents, in the order of its channels, drawn from the coarsest on:
q of a group is told the image and all groups before it (NVAE; Vahdat and Kautz 2020,
arXiv:2007.03898). What a group says z of, given those before it, is z = mean + std eps, where mean
and std are the decoder's: the latents are eps, which N(0, I) is a good first prior of (LSGM; Vahdat
et al. 2021, appendix G).

Heads are bounded, 5 tanh(. / 5), so that no latent is so sure or so far away that training ends.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from choices import ArgumentError, Range, check_options, option
from models import blocks
from models.convolution import Conv, Image, conv2d, depth_to_space, space_to_depth
from models.layers import FEW, NIN, WIDTH, GroupNorm, initializer, swish
from shapes import ImageShape, PerImage, State

# Latents of one size, or the noise that makes them.
Map = Float[Array, 'batch _ _ _']

BOUND = 5.0


class Posterior(NamedTuple):
    """N(mean, exp(log_std)^2) in each number of the latents of a batch."""

    mean: State
    log_std: State

    def sample(self, noise: State) -> State:
        """The latents that standard normal noise makes."""
        return self.mean + jnp.exp(self.log_std) * noise

    def log_prob_of(self, noise: State) -> PerImage:
        """The log-density of `sample(noise)`, in nats."""
        each = -0.5 * noise**2 - self.log_std - 0.5 * math.log(2 * math.pi)
        return each.reshape(len(each), -1).sum(axis=1)


class Latents(NamedTuple):
    """One draw from q of the latents of one size: `log_q` is the log-density of each group, given
    those before it, in nats.
    """

    z: State
    log_q: Float[Array, 'batch groups']

    def divergence(self) -> Float[Array, 'batch groups']:
        """log q - log N(0, I) of each group, in nats: in the mean its KL divergence."""
        num, height, width, channels = self.z.shape
        groups = self.log_q.shape[1]
        log_normal = jax.scipy.stats.norm.logpdf(self.z)
        by_group = log_normal.reshape(num, height * width, groups, channels // groups)
        return self.log_q - by_group.sum((1, 3))


class Passage(NamedTuple):
    """Images through the autoencoder: the latents of every size, coarsest first, and the features
    of the distribution of every pixel.
    """

    latents: tuple[Latents, ...]
    features: Array


class Autoencoder(nn.Module):
    """What both kinds have: the shape of images, and how many numbers a pixel's distribution needs
    of the decoder. An experiment fills both.
    """

    code_channels: int = option(32, 'channels of a group of codes', WIDTH)

    image_shape: ImageShape = (28, 28, 1)
    num_features: int = 1

    def __post_init__(self):
        check_options(self)
        super().__post_init__()

    @property
    def latent_shapes(self) -> tuple[ImageShape, ...]:
        """Height, width and channels of the latents of every size, the codes first."""
        raise TypeError(f'{type(self).__name__} does not define latent_shapes')

    @property
    def num_groups(self) -> tuple[int, ...]:
        """Groups of latents of every size."""
        return (1,)


def bounded(heads: Float[Array, '*shape features']) -> Posterior:
    """The distribution of features, half of which are means and half logarithms of standard
    deviations.
    """
    return Posterior(*jnp.split(BOUND * jnp.tanh(heads / BOUND), 2, axis=-1))


# Without neighbours


class MLPAutoencoder(Autoencoder):
    """Fully connected layers: one group of codes of 1 x 1 pixel, which say nothing of where in the
    image.
    """

    width: int = option(400, 'features of the hidden layers', WIDTH)
    num_layers: int = option(2, 'hidden layers of the encoder, and of the decoder', FEW)

    def setup(self):
        def hidden():
            return [nn.Dense(self.width) for _ in range(self.num_layers)]

        self.encoder, self.head = hidden(), nn.Dense(2 * self.code_channels)
        height, width, _ = self.image_shape
        self.decoder, self.out = hidden(), nn.Dense(height * width * self.num_features)

    @property
    def latent_shapes(self) -> tuple[ImageShape, ...]:
        """1 x 1 pixel."""
        return ((1, 1, self.code_channels),)

    def __call__(self, x: Image, noises: Sequence[Map]) -> Passage:
        """There and back, with codes that the noise makes."""
        h = x.reshape(len(x), -1)
        for layer in self.encoder:
            h = swish(layer(h))
        posterior = bounded(self.head(h).reshape(len(x), 1, 1, -1))
        z = posterior.sample(noises[0])
        codes = Latents(z, posterior.log_prob_of(noises[0])[:, None])
        return Passage((codes,), self.decode([z]))

    def decode(self, zs: Sequence[Map]) -> Array:
        """The features of every pixel's distribution."""
        h = zs[0].reshape(len(zs[0]), -1)
        for layer in self.decoder:
            h = swish(layer(h))
        return self.out(h).reshape(len(h), *self.image_shape[:2], self.num_features)


# With neighbours


class Level(NamedTuple):
    """One size, and its groups of latents, of which it may have none."""

    features: int
    groups: int


class ConvolutionalAutoencoder(Autoencoder):
    """Residual cells on the way from the image to the coarsest size and back. Latents are maps.

    On the way back each group is drawn, joined to the features, and followed by cells, which the
    groups after it begin with.
    """

    nf: int = option(32, 'features of the finest size', WIDTH)
    ch_mult: tuple[int, ...] = option(
        (1, 2, 4),
        'features of every size, in units of nf; codes have the last one, and each is half of that '
        'before',
        FEW,
        length=Range(1, 14),
    )
    first_halvings: int = option(
        0, 'how often squares of 2 x 2 pixels become channels before the finest size', Range(0, 6)
    )
    cells: int = option(1, 'residual cells of a size without latents, on either way', FEW)
    group_cells: int = option(1, 'residual cells of each group of latents, on either way', FEW)
    groups: int = option(1, 'groups of codes, each of which is told those before it', FEW)
    finer_groups: tuple[int, ...] = option(
        (),
        'groups of latents of each finer size, the first twice as high as the codes; their prior '
        'stays N(0, I)',
        FEW,
        length=Range(0, 13),
    )
    margin: int = option(
        0, 'zeros around images, which are no part of what is decoded', Range(0, 2**10)
    )

    def setup(self):
        levels = self._levels
        self.first = _convolution(levels[0].features)
        self.encoder = [self._cells(level) for level in levels]
        self.halve = [blocks.Downsample(level.features, True, None) for level in levels[1:]]
        of_groups = [level.features for level in levels[::-1] for _ in range(level.groups)]
        self.heads = [Head(self.code_channels) for _ in of_groups]
        self.joins = [Join(features) for features in of_groups]
        self.decoder = [self._cells(level) for level in levels]
        self.double = [blocks.Upsample(level.features, True, None) for level in levels[:-1]]
        self.last_norm = GroupNorm(swish)
        self.out = _convolution(4**self.first_halvings * self.num_features)

    @property
    def _levels(self) -> list[Level]:
        """Finest first."""
        groups = [self.groups, *self.finer_groups]
        without = len(self.ch_mult) - len(groups)
        if without < 0:
            raise ArgumentError(
                'finer_groups',
                f'{self.finer_groups!r}: ch_mult {self.ch_mult!r} has {len(self.ch_mult)} sizes, '
                'the last one that of codes',
            )
        widths = [self.nf * multiple for multiple in self.ch_mult]
        return [*map(Level, widths, [0] * without + groups[::-1])]

    def _cells(self, level):
        """Those of each group, or of a size without any."""
        num = self.group_cells if level.groups else self.cells
        return [
            [blocks.ResnetBlockDDPMpp(level.features, dropout=0.0) for _ in range(num)]
            for _ in range(level.groups or 1)
        ]

    @property
    def num_groups(self) -> tuple[int, ...]:
        """Groups of latents of every size."""
        return self.groups, *self.finer_groups

    @property
    def latent_shapes(self) -> tuple[ImageShape, ...]:
        """The last sizes; raises ArgumentError for images that cannot be halved so often, and for
        groups of sizes that there are not.
        """
        height, width = (side + 2 * self.margin for side in self.image_shape[:2])
        halvings = self.first_halvings + len(self._levels) - 1
        factor = 2**halvings
        if height % factor or width % factor:
            raise ArgumentError(
                'image_size',
                f'{height}x{width}, the margin included, cannot be halved {halvings} times; '
                f'multiples of {factor} can',
            )
        sizes = [factor >> i for i in range(len(self.num_groups))]
        return tuple(
            (height // size, width // size, groups * self.code_channels)
            for size, groups in zip(sizes, self.num_groups, strict=True)
        )

    def __call__(self, x: Image, noises: Sequence[Map]) -> Passage:
        """There and back, with latents that the noise makes."""
        seen, parts, drawn = self._up(x), self._split(noises), []

        def draw(h):
            posterior = self.heads[len(drawn)](seen.pop(), h)
            noise = parts[len(drawn)]
            drawn.append((posterior.sample(noise), posterior.log_prob_of(noise)))
            return drawn[-1][0]

        features = self._back(draw)
        found, latents = iter(drawn), []
        for groups in self.num_groups:
            zs, log_qs = zip(*(next(found) for _ in range(groups)), strict=True)
            latents.append(Latents(jnp.concatenate(zs, -1), jnp.stack(log_qs, 1)))
        return Passage(tuple(latents), features)

    def decode(self, zs: Sequence[Map]) -> Array:
        """The features of every pixel's distribution."""
        parts = iter(self._split(zs))
        return self._back(lambda h: next(parts))

    def _split(self, states: Sequence[Map]) -> list[Map]:
        """Those of every group, in the order in which they are drawn."""
        by_size = zip(states, self.num_groups, strict=True)
        return [part for state, groups in by_size for part in jnp.split(state, groups, -1)]

    def _up(self, x: Image) -> list[Array]:
        """What each group sees of the image, the last one first."""
        sides = self.margin, self.margin
        h, seen = jnp.pad(x, ((0, 0), sides, sides, (0, 0))), []
        for _ in range(self.first_halvings):
            h = space_to_depth(h)
        h = self.first(h)
        for i, level in enumerate(self._levels):
            h = self.halve[i - 1](h) if i else h
            for cells in self.encoder[i]:
                for cell in cells:
                    h = cell(h)
                seen += [h] if level.groups else []
        return seen

    def _back(self, draw: Callable[[Array | None], State]) -> Array:
        """Features of the pixels of images whose groups `draw` gives, told the features so far."""
        h, joins = None, iter(self.joins)
        for i, level in reversed([*enumerate(self._levels)]):
            for cells in self.decoder[i]:
                h = next(joins)(h, draw(h)) if level.groups else h
                for cell in cells:
                    h = cell(h)
            h = self.double[i - 1](h) if i else h
        h = self.out(self.last_norm(h))
        for _ in range(self.first_halvings):
            h = depth_to_space(h)
        inside = [slice(self.margin, self.margin + side) for side in self.image_shape[:2]]
        return h[:, *inside]


class Head(nn.Module):
    """q of a group: of what it sees of the image, and of the features that the groups before it
    have made, if there are any.
    """

    code_channels: int

    @nn.compact
    def __call__(self, seen: Image, h: Image | None) -> Posterior:
        seen = seen if h is None else seen + NIN(seen.shape[-1])(h)
        return bounded(_convolution(2 * self.code_channels)(GroupNorm(swish)(seen)))


class Join(nn.Module):
    """Features after a group: those before it, and its z, whose mean and standard deviation follow
    from them.
    """

    features: int

    @nn.compact
    def __call__(self, h: Image | None, latents: State) -> Array:
        if h is None:
            return _convolution(self.features)(latents)
        # At first the mean is 0, and the standard deviation 1.
        prior = bounded(NIN(2 * latents.shape[-1], init_scale=0.0)(swish(h)))
        return h + _convolution(self.features)(prior.sample(latents))


def _convolution(features: int) -> Conv:
    return Conv(features, 3, conv2d, initializer(), jnp.float32)


AUTOENCODERS = {'mlp': MLPAutoencoder, 'convolutional': ConvolutionalAutoencoder}

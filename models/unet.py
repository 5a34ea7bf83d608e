"""The U-Net of DDPM (Ho et al. 2020), which NCSN++, DDPM++ and ADM are made of too.

    down    per level: blocks, each with attention if the level has it; then half the size
    middle  block, attention, block
    up      per level: one block more, each fed with the output of a block of the way down;
            attention if the level has it, after the last block or after each; then double the size

The embedding of the noise level, and of a class, enters every block.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from choices import ArgumentError, Range, option
from models.convolution import Conv
from models.layers import (
    ACTIVATIONS,
    FEW,
    WIDTH,
    dense,
    dtype_option,
    initializer,
    precision_option,
    remat_option,
)

Classes = Int[Array, 'batch']


class Level(NamedTuple):
    """One resolution."""

    height: int
    width: int
    features: int
    attention: bool
    finest: bool
    coarsest: bool


class UNet(nn.Module):
    """The fields and loops of the networks, which say what their parts are.

    Those are `_block(features)` and `_attention(features)`, modules; `_halve` and `_double`, which
    change the size; and, if an image goes along with the features, `_join_input` and
    `_join_output`.
    """

    nf: int = option(128, 'features of the first level', WIDTH)
    ch_mult: tuple[int, ...] = option(
        (1, 2, 2, 2), 'features of every level, in units of nf', FEW, length=Range(1, 14)
    )
    embedding_mult: int = option(
        4, 'features of the embedding of the noise level, in units of nf', FEW
    )
    num_res_blocks: int = option(
        2, 'blocks of a level on the way down; one more on the way up', FEW
    )
    attn_resolutions: tuple[int, ...] = option((16,), 'heights of the levels with attention', WIDTH)
    dropout: float = option(
        0.1, 'share of activations that training sets to 0', Range(0, 1, without_high=True)
    )
    resamp_with_conv: bool = option(
        True, 'changes of size are convolutions; otherwise they have no parameters'
    )
    conditional: bool = option(True, 'the network sees the noise level')
    nonlinearity: str = option('swish', 'activation', ACTIVATIONS)
    scale_by_sigma: bool = option(False, 'the output is divided by sigma')
    dtype: str = dtype_option()
    precision: str = precision_option()
    remat: bool = remat_option()

    # Not for users: an experiment fills these from its data and its SDE.
    centered: bool = True  # images come in [-1, 1]; otherwise in [0, 1], and are mapped here
    sigma_min: float = 0.01  # for labels that are levels, sigma falls geometrically ...
    sigma_max: float = 50.0  # ... from sigma_max at label 0 ...
    num_scales: int = 1000  # ... to sigma_min at label num_scales - 1

    integer_labels = False  # any number is a label
    attends_after_each = False  # on the way up, in levels with attention; else after the last block

    def plan(self, height: int, width: int) -> tuple[Level, ...]:
        """The levels for images of this size, finest first.

        Raises ArgumentError if sizes cannot be halved so often, or attention would be nowhere.
        """
        last = len(self.ch_mult) - 1
        if height % 2**last or width % 2**last:
            raise ArgumentError(
                'ch_mult',
                f'{last + 1} levels need height and width to be multiples of {2**last}, and images '
                f'are {height}x{width}',
            )
        sides = [height >> i for i in range(last + 1)]
        for side in self.attn_resolutions:
            if side not in sides:
                raise ArgumentError(
                    'attn_resolutions',
                    f'no level has {side} rows; of images of {height}x{width}, levels have {sides}',
                )
        return tuple(
            Level(
                height=height >> i,
                width=width >> i,
                features=self.nf * multiple,
                attention=(height >> i) in self.attn_resolutions,
                finest=i == 0,
                coarsest=i == last,
            )
            for i, multiple in enumerate(self.ch_mult)
        )

    def _down(self, levels, image, temb, train):
        """The outputs that the way up is fed with, finest first."""
        skips = [self._conv(self._first_features(levels))(image)]
        for level in levels:
            for _ in range(self.num_res_blocks):
                h = self._block(level.features)(skips[-1], temb, train)
                skips.append(self._attention(h.shape[-1])(h) if level.attention else h)
            if not level.coarsest:
                h = self._halve(skips[-1], temb, train)
                h, image = self._join_input(h, image)
                skips.append(h)
        return skips

    def _middle(self, h, temb, train):
        features = h.shape[-1]
        h = self._block(features)(h, temb, train)
        h = self._attention(h.shape[-1])(h)
        return self._block(features)(h, temb, train)

    def _up(self, levels, h, skips, channels, temb, train):
        """The finest features, and what `_join_output` collected of an image of `channels`."""
        pyramid = None
        for level in reversed(levels):
            for i in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], -1)
                h = self._block(level.features)(h, temb, train)
                is_last = i == self.num_res_blocks
                if level.attention and (is_last or self.attends_after_each):
                    h = self._attention(h.shape[-1])(h)
            h, pyramid = self._join_output(h, pyramid, channels)
            if not level.finest:
                h = self._double(h, temb, train)
        return h, pyramid

    def _first_features(self, levels):
        """Features of the first convolution."""
        return self.nf

    def _embed_features(self, temb):
        """The embedding of features of the noise level: two layers."""
        size = self.embedding_mult * self.nf
        temb = self._dense(size)(temb)
        return self._dense(size)(ACTIVATIONS[self.nonlinearity](temb))

    def _join_input(self, h, image):
        """The features after meeting the input at half its size, and that input."""
        return h, image

    def _join_output(self, h, pyramid, channels):
        """The features, once they met the output collected so far (None at first), and it."""
        return h, None

    def _conv(self, features, init_scale=1.0):
        return Conv(features, kernel_init=initializer(init_scale), dtype=self.dtype)

    def _dense(self, features):
        return dense(features, self.dtype)


class ClassUNet(UNet):
    """A U-Net that may be given the classes of its images."""

    num_classes: int = option(
        0,
        'classes of the labels that the network is given; 0: it is given none',
        Range(0, 10**6),
    )

    def _embed_classes(self, classes, labels, features, init, scale=1.0, use_bias=False):
        """`features` numbers for the class of each image; None if the network knows no classes. The
        layer sees `scale` at the place of the class, and nothing for -1.
        """
        if classes is not None and not self.num_classes:
            raise ArgumentError('num_classes', 'classes are given, and the network knows of none')
        if not self.num_classes:
            return None
        classes = jnp.full(labels.shape, -1) if classes is None else classes
        layer = nn.Dense(features, use_bias, self.dtype, kernel_init=init, name='class_embedding')
        return layer(scale * jax.nn.one_hot(classes, self.num_classes))

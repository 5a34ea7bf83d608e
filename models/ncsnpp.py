"""NCSN++ and DDPM++: the U-Net of Song et al. 2021 (section 4.2, appendix H), all its options.

`progressive_input` feeds the image, ever smaller, to the way down of the U-Net (unet.py);
`progressive` collects an image, ever larger, on the way up. Either does so as an image
('input_skip', 'output_skip') or as features that become the way itself ('residual').
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from choices import OneOf, Range, check_options, option
from models import blocks
from models.convolution import Image
from models.layers import (
    ACTIVATIONS,
    FEW,
    POSITIVE,
    GaussianFourierProjection,
    GroupNorm,
    Labels,
    in_precision,
    initializer,
    level_sigmas,
    positional_embedding,
    recomputing,
    residual_sum,
)
from models.unet import Classes, ClassUNet

BLOCKS = {'ddpm': blocks.ResnetBlockDDPMpp, 'biggan': blocks.ResnetBlockBigGANpp}


class NCSNpp(ClassUNet):
    """The network: `model.apply({'params': params}, x, labels)` is a float32 image for each of `x`.

    `labels` say how noisy each image is: sigma, or another positive number, of which the embeddings
    'fourier' and 'log_positional' take the logarithm; with 'positional' a position in
    [0, num_scales). `classes` are in [0, num_classes), or -1 for none.
    With `train`, dropout needs a key: `rngs={'dropout': key}`.
    """

    num_res_blocks: int = option(
        4, 'blocks of a level on the way down; one more on the way up', FEW
    )
    fir: bool = option(False, 'resample by fir_kernel; otherwise by repeating and averaging')
    fir_kernel: tuple[float, ...] = option(
        (1.0, 3.0, 3.0, 1.0), 'filter of fir, in one dimension', POSITIVE, length=Range(0, 64)
    )
    skip_rescale: bool = option(True, 'residual sums are divided by sqrt(2)')
    resblock_type: str = option(
        'biggan', 'blocks: with ddpm the size changes between them, with biggan inside', BLOCKS
    )
    progressive: str = option(
        'none',
        'what is collected on the way up: an image (output_skip) or features (residual)',
        OneOf(('none', 'output_skip', 'residual')),
    )
    progressive_input: str = option(
        'none',
        'how the image enters on the way down: as it is (input_skip) or as features (residual)',
        OneOf(('none', 'input_skip', 'residual')),
    )
    progressive_combine: str = option('sum', 'how input_skip joins', OneOf(('sum', 'cat')))
    embedding_type: str = option(
        'positional',
        'how the noise level is embedded; fourier and log_positional take its logarithm',
        OneOf(('fourier', 'positional', 'log_positional')),
    )
    fourier_scale: float = option(
        16.0, 'standard deviation of the frequencies of fourier', POSITIVE
    )
    init_scale: float = option(
        0.0, 'of the first values of the last layer of blocks and of the output', Range(0)
    )
    class_input: str = option(
        'embedding',
        'what classes are added to: the embedding of the noise level, or, as in EDM, the features '
        'that it is made of',
        OneOf(('embedding', 'features')),
    )

    # Not for users: an experiment fills this.
    out_channels: int = 0  # of the output; 0: as many as the input has

    def __post_init__(self):
        check_options(self)
        super().__post_init__()

    @nn.compact
    @in_precision
    def __call__(
        self, x: Image, labels: Labels, classes: Classes | None = None, train: bool = False
    ) -> Float[Array, 'batch height width features']:
        levels = self.plan(*x.shape[1:3])
        temb = self._embed(labels, classes)
        skips = self._down(levels, x if self.centered else 2 * x - 1, temb, train)
        h = self._middle(skips[-1], temb, train)
        channels = self.out_channels or x.shape[-1]
        h, pyramid = self._up(levels, h, skips, channels, temb, train)
        skip = self.progressive == 'output_skip'
        y = pyramid if skip else self._head(h, channels, self.init_scale)
        y = y.astype(jnp.float32)
        return y / self._sigma(labels) if self.scale_by_sigma else y

    # The steps of the loops.

    def _halve(self, h, temb, train):
        if self.resblock_type == 'biggan':
            return self._block(h.shape[-1], blocks.downsampling(self._fir))(h, temb, train)
        return blocks.Downsample(h.shape[-1], self.resamp_with_conv, self._fir, self.dtype)(h)

    def _double(self, h, temb, train):
        if self.resblock_type == 'biggan':
            return self._block(h.shape[-1], blocks.upsampling(self._fir))(h, temb, train)
        return blocks.Upsample(h.shape[-1], self.resamp_with_conv, self._fir, self.dtype)(h)

    def _join_input(self, h, image):
        if self.progressive_input == 'none':
            return h, image
        with_conv = self.progressive_input == 'residual'
        image = blocks.Downsample(h.shape[-1], with_conv, self._fir, self.dtype)(image)
        if self.progressive_input == 'input_skip':
            return blocks.Combine(self.progressive_combine, self.dtype)(image, h), image
        h = residual_sum(image, h, self.skip_rescale)
        return h, h

    def _join_output(self, h, pyramid, channels):
        if self.progressive == 'none':
            return h, None
        with_conv = self.progressive == 'residual'
        if pyramid is not None:
            pyramid = blocks.Upsample(h.shape[-1], with_conv, self._fir, self.dtype)(pyramid)
        if self.progressive == 'output_skip':
            image = self._head(h, channels, self.init_scale)
            return h, image if pyramid is None else pyramid + image
        if pyramid is None:
            return h, self._head(h, h.shape[-1], 1.0)
        h = residual_sum(pyramid, h, self.skip_rescale)
        return h, h

    # The parts, with the fields of this network.

    def _embed(self, labels, classes):
        """The embedding of noise level and class; None if the network sees neither."""
        features = self._noise_features(labels)
        if self.class_input == 'features':
            # Scaled and with a bias, as EDM has it.
            scale, size = math.sqrt(self.num_classes), self._num_noise_features
            of_class = self._embed_classes(classes, labels, size, initializer(), scale, True)
            features = blocks.total(features, of_class)
        temb = None if features is None else self._embed_features(features)
        if self.class_input == 'features':
            return temb
        # No bias, so that the null label adds nothing.
        size = self.embedding_mult * self.nf
        return blocks.total(temb, self._embed_classes(classes, labels, size, initializer()))

    def _noise_features(self, labels):
        """What the embedding of the noise level is made of; None if the network does not see it."""
        if self.embedding_type == 'fourier':
            # Published checkpoints have its frequencies even if nothing looks at them.
            projection = GaussianFourierProjection(self.nf, self.fourier_scale)
            features = projection(jnp.log(labels))
        else:
            labels = labels.astype(jnp.float32)
            labels = jnp.log(labels) if self.embedding_type == 'log_positional' else labels
            features = positional_embedding(labels, self.nf)
        return features if self.conditional else None

    @property
    def _num_noise_features(self):
        return (2 if self.embedding_type == 'fourier' else 1) * self.nf

    def _sigma(self, labels):
        if self.embedding_type != 'positional':
            return labels[:, None, None, None]
        return level_sigmas(labels, self.sigma_min, self.sigma_max, self.num_scales)

    def _block(self, features, resample=None):
        block = recomputing(BLOCKS[self.resblock_type], self.remat, static_argnums=(3,))
        return block(
            features,
            act=ACTIVATIONS[self.nonlinearity],
            dropout=self.dropout,
            rescale=self.skip_rescale,
            init_scale=self.init_scale,
            dtype=self.dtype,
            **({'resample': resample} if resample else {}),
        )

    def _attention(self, features):
        return blocks.AttnBlockpp(self.skip_rescale, self.init_scale, self.dtype)

    def _head(self, h, features, init_scale):
        h = GroupNorm(ACTIVATIONS[self.nonlinearity], dtype=self.dtype)(h)
        return self._conv(features, init_scale)(h)

    @property
    def _fir(self):
        return self.fir_kernel if self.fir else None

"""Latent score models: an autoencoder of images, and a score model that is the prior of its codes
(LSGM; Vahdat et al. 2021, arXiv:2106.05931)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Int
from ml_collections import ConfigDict

import keys
import models
import sde_lib
from choices import InputError, choose, fields_of
from datasets import quantization
from experiments import image_drawing, score_model
from experiments.reading import ImageFormat, image_format, plain_fields
from experiments.score_model import ScoreModel
from models import vae
from models.pixels import PIXEL_DISTRIBUTIONS, PixelDistribution
from models.vae import Map, Passage
from parameterization import Process
from shapes import ImageKeys, ImageShape, OneKey, Pixels, State
from solvers.sampler import Sampler
from training import Params

# The parts of the parameters.
AUTOENCODER, PRIOR = 'autoencoder', 'prior'


@dataclasses.dataclass(frozen=True)
class LatentModel:
    """An autoencoder, the distribution of pixels that it decodes codes to, and the model of codes.

    Without `has_prior` codes are N(0, I), and the score model is there and not asked.
    `is_binarized`: of images only whether a pixel is on, drawn with its value as probability. Both
    networks multiply in the precision of that of the codes.
    """

    autoencoder: nn.Module
    distribution: PixelDistribution
    codes: ScoreModel
    format: ImageFormat
    is_binarized: bool
    has_prior: bool

    num_classes = 0  # It is given none.

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels."""
        return self.format.shape

    def init_params(self, key: OneKey) -> Params:
        """Initial parameters of both parts."""
        key_autoencoder, key_prior = jax.random.split(key)
        x = jnp.zeros((1, *self.image_shape))
        noises = [jnp.zeros((1, *shape)) for shape in self.autoencoder.latent_shapes]
        return {
            AUTOENCODER: self.autoencoder.init(key_autoencoder, x, noises)['params'],
            PRIOR: self.codes.init_params(key_prior),
        }

    def process(self, params: Params, dropout_key: OneKey | None = None) -> Process:
        """The process of codes."""
        if not self.has_prior:
            return Process(self.codes.sde, self.codes.sde.normal_score)
        return self.codes.process(params[PRIOR], dropout_key=dropout_key)

    def augment(self, key: OneKey, pixels: Pixels, train: bool) -> Pixels:
        """Images as the objective sees them: `train` flips; binarised if they are to be."""
        key_flip, key_binary = jax.random.split(key)
        if train and self.format.random_flip:
            pixels = quantization.mirror(key_flip, pixels)
        return quantization.binarize(key_binary, pixels) if self.is_binarized else pixels

    def of_each(self, image_keys: ImageKeys, pixels: Pixels) -> Pixels:
        """Images, each binarised by its own key if they are to be."""
        return quantization.binarize_each(image_keys, pixels) if self.is_binarized else pixels

    def noises(self, key: OneKey, num: int) -> list[Map]:
        """Standard normal noise for the latents of so many images, of every size."""
        shapes = self.autoencoder.latent_shapes
        of_sizes = zip(jax.random.split(key, len(shapes)), shapes, strict=True)
        return [jax.random.normal(of_size, (num, *shape)) for of_size, shape in of_sizes]

    def noises_of_each(self, image_keys: ImageKeys) -> list[Map]:
        """Standard normal noise for the latents of images, each from its own key, of every size."""
        shapes = self.autoencoder.latent_shapes
        return [keys.normal(image_keys, i, shape) for i, shape in enumerate(shapes)]

    def through(self, params: Params, pixels: Pixels, noises: Sequence[Map]) -> Passage:
        """The latents of images that the noise makes, and the features that they are decoded to."""
        return self._apply(params, None, self.format.to_float(pixels), noises)

    def decode(self, params: Params, zs: Sequence[Map]) -> Array:
        """The features of every pixel's distribution, from latents of every size."""
        return self._apply(params, 'decode', zs)

    def _apply(self, params: Params, method: str | None, *inputs: Any) -> Any:
        with jax.default_matmul_precision(self.codes.network.precision):
            return self.autoencoder.apply({'params': params[AUTOENCODER]}, *inputs, method=method)

    def draw(
        self,
        codes: ScoreModel,
        sampler: Sampler,
        params: Params,
        key: OneKey,
        indices: Int[Array, 'batch'],
        given: None = None,
    ) -> dict[str, Array]:
        """The images with these indices, as `image_drawing.draw_images` has them: codes by the
        sampler, latents of finer sizes from N(0, I), and the means of the pixels that they are
        decoded to.
        """
        keys_codes, keys_finer = keys.split(keys.of_images(key, indices), 2)
        drawn = sampler(keys_codes, self.process(params), codes.image_shape)
        finer = self.noises_of_each(keys_finer)[1:]
        x = self.mean(self.decode(params, [drawn.x, *finer]))
        return image_drawing.in_8_bits(self.format, drawn._replace(x=x))

    def mean(self, features: Array) -> State:
        """The expected pixels by the features of their distribution, in the range of the format."""
        unit = self.distribution.mean(features)
        return 2 * unit - 1 if self.format.centered else unit


def create(config: ConfigDict) -> LatentModel:
    """Raises InputError for names that do not exist and for fields that do not go together."""
    data, fields = config.data, config.autoencoder
    with fields_of('autoencoder'):
        distribution = choose(PIXEL_DISTRIBUTIONS, fields.decoder, 'decoder')
    if distribution.is_binary and not data.binarize:
        raise InputError(
            f'autoencoder.decoder: {fields.decoder!r} is for pixels of two values; '
            'data.binarize = True, or another decoder needed'
        )
    if data.dequantize:
        raise InputError(
            'data.dequantize: True; decoders give probabilities of 8-bit values, to which no noise '
            'is added: False needed'
        )
    if config.model.get('num_classes'):
        raise InputError(
            f'model.num_classes: {config.model.num_classes}; the prior of codes is told no '
            'classes: 0 needed'
        )
    images = image_format(data)
    autoencoder = _autoencoder(fields, images.shape, distribution)
    with fields_of('autoencoder', image_size='data.image_size'):
        shape = autoencoder.latent_shapes[0]
    codes = score_model.of_format(config, ImageFormat(shape, True, False, False))
    if isinstance(codes.sde, sde_lib.Chain):
        continuous = ', '.join(
            name for name, sde in sde_lib.SDES.items() if not issubclass(sde, sde_lib.Chain)
        )
        raise InputError(
            f'sde.name: {config.sde.name!r}; the bound of a latent score model is for SDEs in '
            f'continuous time: one of {continuous}'
        )
    return LatentModel(
        autoencoder=autoencoder,
        distribution=distribution,
        codes=codes,
        format=images,
        is_binarized=data.binarize,
        has_prior=config.training.stage != 'autoencoder',
    )


def _autoencoder(
    fields: ConfigDict, shape: ImageShape, distribution: PixelDistribution
) -> nn.Module:
    with fields_of('autoencoder'):
        chosen = choose(vae.AUTOENCODERS, fields.name, 'name')
        own = [field.name for field in models.all_fields(chosen) if field.metadata]
        return chosen(
            image_shape=shape,
            num_features=distribution.num_features(shape[-1]),
            **plain_fields(fields, only=own),
        )

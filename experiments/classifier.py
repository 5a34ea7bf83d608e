"""Noise-conditional classifiers: an SDE, and a network that tells classes of noisy images apart."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from choices import InputError
from evaluation.extractors import Features
from experiments.reading import (
    ImageFormat,
    check_time,
    create_network,
    create_sde,
    image_format,
    network_fields,
    plain_fields,
)
from guidance import classification
from guidance.classification import ClassLogProbs
from sde_lib import SDE
from shapes import ImageShape, OneKey, Pixels
from training import Params


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network for images of one format, and the SDE whose noise it knows from time `t_min` on;
    `knows_noise`: it was trained with any.
    """

    sde: SDE
    network: nn.Module
    format: ImageFormat
    t_min: float
    knows_noise: bool = True

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels."""
        return self.format.shape

    @property
    def num_classes(self) -> int:
        """How many classes it tells apart."""
        return self.network.num_classes

    def init_params(self, key: OneKey) -> Params:
        """Initial parameters of the network."""
        with network_fields():
            return self.network.init(key, jnp.zeros((1, *self.image_shape)), jnp.ones(1))['params']

    def under(self, sde: SDE) -> 'Classifier':
        """This network for the noise of another SDE."""
        t_min = sde.time_at_log_snr(self.sde.log_snr(jnp.float32(self.t_min)))
        return dataclasses.replace(self, sde=sde, t_min=float(t_min))

    def class_log_probs(self, params: Params) -> ClassLogProbs:
        """log p(y | x_t) of every class."""

        def network(x, sigma):
            return self.network.apply({'params': params}, x, sigma)

        return classification.class_log_probs(self.sde, network, self.t_min)

    def features(self, params: Params, pixels: Pixels) -> Features:
        """The layer before the logits, and the logits, of images without noise."""
        x = self.format.to_float(pixels)
        # As in classification.class_log_probs: the least noise that the network knows.
        sigma = jnp.exp(-0.5 * self.sde.log_snr(jnp.full(len(x), self.t_min)))
        logits, kept = self.network.apply({'params': params}, x, sigma, mutable=['features'])
        return kept['features']['pooled'][0], logits


def create(config: ConfigDict) -> Classifier:
    """Raises InputError for names that do not exist and for fields that do not go together."""
    sde, data = create_sde(config.sde), image_format(config.data)
    for field in ('channel_mean', 'channel_std'):
        values, channels = config.model.get(field, ()), config.data.channels
        if len(values) not in (0, channels):
            raise InputError(f'model.{field}: {values}, and images have {channels} channels')
    t_min = config.training.t_min
    check_time('training.t_min', t_min, sde)
    return Classifier(
        sde=sde,
        network=create_network(plain_fields(config.model), data.shape),
        format=data,
        t_min=sde.t_min if t_min is None else t_min,
        knows_noise=config.training.noise,
    )

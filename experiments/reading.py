"""From the sections of a config that experiments share to plain values."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

import models
import sde_lib
import time_sampling
import training
from choices import InputError, choose, fields_of
from datasets import loading, quantization
from datasets.loading import Images
from devices import processes
from experiments import labels
from gradient_noise import weights
from sde_lib import SDE
from shapes import Floats, ImageShape, OneKey, PerImage, Pixels, Scalar
from training import MovingAverage, Update


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """The shape of images, and how their 8 bits become floats; see datasets/quantization.py."""

    shape: ImageShape
    centered: bool
    dequantized: bool
    random_flip: bool

    def batch_shapes(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of a batch of images and their labels."""
        return {
            'image': jax.ShapeDtypeStruct((size, *self.shape), jnp.uint8),
            'label': jax.ShapeDtypeStruct((size,), jnp.int32),
        }

    def augment(self, key: OneKey, pixels: Pixels, train: bool) -> Floats:
        """The floats of images, as objectives see them; `train` flips."""
        return quantization.augment(
            key,
            pixels,
            random_flip=train and self.random_flip,
            dequantized=self.dequantized,
            centered=self.centered,
        )

    def to_float(self, pixels: Pixels) -> Floats:
        """Images without noise."""
        return quantization.to_float(pixels, self.centered)

    def to_uint8(self, x: Floats) -> Pixels:
        """The nearest 8 bits."""
        return quantization.to_uint8(x, self.centered)


def image_format(data: ConfigDict) -> ImageFormat:
    """The format that config.data gives."""
    return ImageFormat(
        shape=(*data.image_size, data.channels),
        centered=data.centered,
        dequantized=data.dequantize,
        random_flip=data.random_flip,
    )


def load_images(data: ConfigDict, split: str, num_classes: int | None = None) -> Images:
    """The images of a split, as config.data says; what the source holds is said in a line.

    Raises InputError if their labels are not those of a network with so many classes (0: it is
    given none, which is said too; None: there is no such network).
    """
    images = loading.load(
        data.source,
        split,
        data.image_size,
        data.channels,
        data.test_fraction,
        data.fit,
        data.data_dir,
        data.crop_size,
        data.max_pixels,
        data.get('invert', False),
    )
    unused = num_classes == 0 and images.class_names
    note = '; the classes are not used: model.num_classes is 0' if unused else ''
    processes.tell_once(f'data.source {images.found()}{note}')
    return labels.checked(images, split, data.source, num_classes) if num_classes else images


def create_sde(fields: ConfigDict) -> SDE:
    """The SDE of config.sde, with the numbers of its own; those of others were for another one, in
    whose place the command line has put it (validation.py).
    """
    with fields_of('sde'):
        known = {**sde_lib.SDES, **sde_lib.WITHOUT_KERNEL}
        own = dataclasses.fields(choose(known, fields.name, 'name'))
        names = ['name', *(field.name for field in own)]
        return sde_lib.create(**plain_fields(fields, only=names))


def create_network(fields: dict, shape: ImageShape) -> nn.Module:
    """The network of config.model; InputError if it cannot be, or not for images of this shape."""
    with network_fields():
        network = models.create(**fields)
        network.plan(*shape[:2])
    return network


def network_fields() -> contextlib.AbstractContextManager[None]:
    """Within it the errors of networks name the fields that a user has written."""
    return fields_of('model', image_size='data.image_size', channels='model.nf, model.ch_mult')


def create_update(config: ConfigDict) -> Update:
    """The optimiser and the moving average of config.optim."""
    fields, num_steps = config.optim, config.training.num_steps
    create = choose(training.OPTIMIZERS, fields.name, 'optim.name')
    names = ['lr', 'warmup', 'weight_decay', 'grad_clip', 'drop_at', 'drop', *OWN[fields.name]]
    substeps = minibatch(config).substeps
    optimizer = create(
        decay_steps=num_steps // substeps if fields.cosine_decay else 0,
        **plain_fields(fields, only=names),
    )
    average = MovingAverage(fields.ema_rate, fields.ema_warmup)
    return Update(optimizer, {training.EMA: average}, config.seed)


# The fields of config.optim that are those of one optimiser.
OWN = {
    'adam': ['beta1', 'beta2', 'eps'],
    'adamax': ['beta1', 'beta2', 'eps'],
    'sgd': [],
    'svag': ['substeps'],
}


class Minibatch(NamedTuple):
    """The examples of one gradient of an update, and how many updates are one of SGD."""

    size: int
    substeps: int


def minibatch(config: ConfigDict) -> Minibatch:
    """One for an update; of SVAG one of two halves. Raises InputError if what config.optim.name
    asks for does not go with other fields.
    """
    size, fields = config.training.batch_size, config.optim
    if fields.name != 'svag':
        return Minibatch(size, 1)
    if size % 2:
        raise InputError(f'training.batch_size: {size}; svag takes two halves of it, even needed')
    if fields.grad_clip > 0:
        raise InputError(
            f'optim.grad_clip: {fields.grad_clip}; the noise of svag is not to be clipped, 0 needed'
        )
    _check_halves(config.training)
    return Minibatch(size // 2, fields.substeps)


def _check_halves(fields: ConfigDict) -> None:
    """Raises InputError if the two halves of a batch are not independent of each other."""
    if not fields.replacement:
        raise InputError(
            'training.replacement: False; the two halves of a batch of svag have to be independent'
        )
    shared_out = 'shares out times over a batch, whose two halves of svag have to be independent'
    times, known = fields.get('time_sampler'), time_sampling.INDEPENDENT
    if times not in (None, *known) and fields.get('noise', True):
        raise InputError(
            f'training.time_sampler: {times!r} {shared_out}; one of {", ".join(known)} needed'
        )
    if fields.get('importance') and fields.stage != 'autoencoder':
        raise InputError(f'training.importance: True {shared_out}; False needed')


def create_mean(config: ConfigDict) -> Callable[[PerImage], Scalar]:
    """How the losses of a batch become that of an update, by their plain mean; with config.optim
    the gradient of SVAG has weights. Raises InputError as `minibatch` does.
    """
    substeps = minibatch(config).substeps
    if config.optim.name != 'svag':
        return jnp.mean

    def mean(losses):
        return weights.weighted_mean(losses, weights.svag(len(losses), substeps))

    return mean


def plain_fields(
    fields: ConfigDict, but: list[str] = (), only: list[str] | None = None
) -> dict[str, Any]:
    """The fields that are not None, as plain values."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None and name not in but and (only is None or name in only)
    }


def check_time(field: str, t: float | None, sde: SDE, without_noise: bool = False) -> None:
    """Raises InputError for a time that is not before T, or, unless allowed, without noise."""
    if t is None:
        return
    if not t < sde.T:
        raise InputError(
            f'{field}: {t}, and the last time of the SDE is {sde.T:g}; below it needed'
        )
    if not (without_noise or sde.sigma(jnp.float32(t)) > 0):
        raise InputError(f"{field}: {t}, where there is no noise; a later time, or None: the SDE's")

"""From config.task to conditional samplers.

    draw(params, key, indices, given) -> Samples

with a classifier's parameters and measurements in `given`. Images are drawn one by one, mapped over
the batch, so that none depends on its neighbours.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

import keys
from choices import InputError, choose
from datasets import classes
from datasets.classes import Classes
from experiments import image_drawing
from experiments.classifier import Classifier
from experiments.score_model import NO_CLASS, ScoreModel
from guidance import class_guidance, classification, measurements, posteriors
from guidance.measurements import Measurement
from parameterization import Process
from sampling import GridSampler
from shapes import ImageKeys, ImageShape, OneKey, State
from solvers.sampler import Sampler, Samples, noise_source
from training import Params

# The number of the key that projections draw from; samplers count from 0.
PROJECTION = 2**32 - 1


class Given(NamedTuple):
    """What images depend on besides the network: parameters of a classifier, of tasks that have
    one, and a measurement of each image."""

    classifier: Params = None
    y: Float[Array, 'images *measurement'] | None = None


Draw = Callable[[Params, OneKey, Int[Array, 'batch'], Given], Samples]


def check_fields(config: ConfigDict, model: ScoreModel) -> None:
    """Raises InputError for fields that the task lacks, or that do not go with the network."""
    task, name = config.task, config.task.name
    choose(TASKS, name, 'task.name')
    if name in NEEDED and task[NEEDED[name]] is None:
        raise InputError(f'task.{NEEDED[name]}: task {name!r} needs one')
    if task.label is not None and name != 'class' and not model.num_classes:
        raise InputError(f'task.label: {task.label}, and the network knows of no classes')
    if config.sampling.batch_mean_norm:
        raise InputError('sampling.batch_mean_norm: True is not for tasks: images are independent')
    image_drawing.check_no_density(config, config.sampling.method, 'what a task draws from')


# What tasks cannot do without.
NEEDED = {'inpaint': 'mask', 'superresolve': 'factor', 'deblur': 'blur_std', 'linear': 'matrix'}


# Classes


def create_class_sampler(
    config: ConfigDict, model: ScoreModel, classifier: Classifier | None, labels: list[int]
) -> Draw:
    """Images of each of these classes in turn, by the network or a classifier."""
    task = config.task
    sampler = image_drawing.create_sampler(config, model.sde, config.sampling.method)
    guide = _by_network(config, model) if model.num_classes else _by_classifier(model, classifier)
    label_of = in_turn(labels)
    evaluations = 2 if model.num_classes and task.guidance != 1 else 1

    def draw_one(params, image_key, index, given):
        process = guide(params, given, label_of(index), task.guidance)
        drawn = sampler(image_key[None], process, model.image_shape)
        return drawn._replace(nfe=evaluations * drawn.nfe)

    return _each(draw_one)


def existing(
    config: ConfigDict, model: ScoreModel, classifier: Classifier | None, known: Classes
) -> list[int]:
    """The classes that there are images of, of those of the network or the classifier: task.label
    alone, or all. `known` are those that it was trained with, if that is known.

    Raises InputError if task.label is none of them.
    """
    num_classes, label = model.num_classes or _num_classes(classifier), config.task.label
    all_of_them = [one for one in known.existing() if one < num_classes] or range(num_classes)
    if label is None:
        return list(all_of_them)
    if not 0 <= label < num_classes:
        raise InputError(f'task.label: {label}; one of 0 to {num_classes - 1} needed')
    if label not in all_of_them:
        raise InputError(
            f'task.label: {label}, and no training image is of this class; there are '
            f'{classes.listed(known)}'
        )
    return [label]


def in_turn(labels: list[int]) -> Callable[[Int[Array, '*n']], Int[Array, '*n']]:
    """From the indices of images to their classes, each of these in turn."""
    return lambda index: jnp.asarray(labels, jnp.int32)[index % len(labels)]


def _num_classes(classifier: Classifier | None) -> int:
    if classifier is None:
        raise InputError(
            'task.classifier: a network that knows no classes needs one to guide it; one that is '
            'trained with model.num_classes needs none'
        )
    return classifier.num_classes


def _by_network(config: ConfigDict, model: ScoreModel) -> Callable:
    if config.task.guidance != 1 and not config.training.label_dropout:
        raise InputError(
            f'task.guidance: {config.task.guidance} needs a network that was trained without '
            'labels too, by training.label_dropout; 1 draws from the classes as they are'
        )

    def guide(params, given, label, scale):
        conditional = model.process(params, label)
        if scale == 1:
            return conditional
        marginal = model.process(params, NO_CLASS)
        return class_guidance.classifier_free_guidance(conditional, marginal, scale)

    return guide


def _by_classifier(model: ScoreModel, classifier: Classifier) -> Callable:
    sde = model.sde
    # Noisier than this the classifier has seen nothing, and says nothing.
    least_log_snr = classifier.sde.log_snr(jnp.float32(classifier.sde.T))
    of_sde = classifier.under(sde)

    def guide(params, given, label, scale):
        log_probs = of_sde.class_log_probs(given.classifier)

        def log_prob(x, t):
            of_label = classification.log_prob(log_probs, jnp.broadcast_to(label, t.shape), x, t)
            return jnp.where(sde.log_snr(t) < least_log_snr, 0.0, of_label)

        return class_guidance.classifier_guidance(model.process(params), log_prob, scale)

    return guide


# Measurements


def create_measured_sampler(
    config: ConfigDict, model: ScoreModel, measurement: Measurement
) -> Draw:
    """Images of which `given.y` are measurements, task.samples_each of every one."""
    task, label = config.task, one_label(config, model)
    sampler = image_drawing.create_sampler(config, model.sde, config.sampling.method)
    create_method = choose(METHODS, task.method, 'task.method')
    condition = create_method(config, sampler, measurement)

    def draw_one(params, image_key, index, given):
        y = given.y[index // task.samples_each][None]
        process = model.process(params, label)
        drawn = condition(image_key[None], process, model.image_shape, y)
        if task.noise_std:
            return drawn
        return drawn._replace(x=posteriors.match(measurement, y, drawn.x))

    return _each(draw_one)


def one_label(config: ConfigDict, model: ScoreModel) -> int | None:
    """The class of all images; without one, class-conditional networks draw as if they had none."""
    label = config.task.label
    if not model.num_classes:
        return None
    if label is None and not config.training.label_dropout:
        raise InputError('task.label: the network is class-conditional, and needs one')
    if label is not None and not 0 <= label < model.num_classes:
        raise InputError(f'task.label: {label}; one of 0 to {model.num_classes - 1} needed')
    return NO_CLASS if label is None else label


def _each(draw_one: Callable) -> Draw:
    def draw(params, key, indices, given):
        image_keys = keys.of_images(key, indices)
        drawn = jax.vmap(draw_one, (None, 0, 0, None))(params, image_keys, indices, given)
        return jax.tree.map(lambda a: a[:, 0], drawn)

    return draw


# (image_keys, process, shape, y) -> Samples
Condition = Callable[[ImageKeys, Process, ImageShape, State], Samples]


def _projection(config: ConfigDict, sampler: Sampler, measurement: Measurement) -> Condition:
    task, sampler = config.task, _on_grid(sampler, config)
    if task.noise_std:
        raise InputError(
            f"task.noise_std: {task.noise_std}, and 'projection' takes measurements for exact; "
            "task.method 'dps' or 'pigdm' is needed"
        )

    def condition(image_keys, process, shape, y):
        own_keys = keys.fold_in(image_keys, PROJECTION)
        noise = noise_source(own_keys, shape, sampler.temperature)
        solver = posteriors.Projected(sampler.solver, measurement, y, noise)
        return dataclasses.replace(sampler, solver=solver)(image_keys, process, shape)

    return condition


def _dps(config: ConfigDict, sampler: Sampler, measurement: Measurement) -> Condition:
    sampler, scale = _on_grid(sampler, config), config.task.guidance

    def condition(image_keys, process, shape, y):
        solver = posteriors.PosteriorSampling(sampler.solver, measurement, y, scale)
        return dataclasses.replace(sampler, solver=solver)(image_keys, process, shape)

    return condition


def _on_grid(sampler: Sampler, config: ConfigDict) -> GridSampler:
    """A sampler whose solver can be replaced."""
    if not isinstance(sampler, GridSampler):
        raise InputError(
            f'task.method: {config.task.method!r} needs a sampler with a time grid, and '
            f"sampling.method {config.sampling.method!r} has none; 'pigdm' needs none"
        )
    return sampler


def _pigdm(config: ConfigDict, sampler: Sampler, measurement: Measurement) -> Condition:
    task = config.task

    def condition(image_keys, process, shape, y):
        guided = posteriors.pseudo_inverse_guidance(
            process,
            measurement,
            y,
            noise_std=task.noise_std,
            data_std=task.data_std,
            scale=task.guidance,
        )
        return sampler(image_keys, guided, shape)

    return condition


METHODS = {'projection': _projection, 'dps': _dps, 'pigdm': _pigdm}


# What is measured, and the shape of images that are measurements already.


class Measured(NamedTuple):
    """A measurement of images, and its shape [height, width, channels] if that is an image too."""

    measurement: Measurement
    shape: ImageShape | None


def _inpaint(task: ConfigDict, shape: ImageShape, known: np.ndarray) -> Measured:
    if known.all() or not known.any():
        which = 'white' if known.any() else 'black'
        raise InputError(f'task.mask: {task.mask} is all {which}; white is known, black is not')
    return Measured(measurements.known_pixels(known, shape[2]), shape)


def _colourise(task: ConfigDict, shape: ImageShape, array: None) -> Measured:
    if shape[2] != 3:
        raise InputError(f'data.channels: {shape[2]}, and task {task.name!r} needs 3')
    return Measured(measurements.grey(), (*shape[:2], 1))


def _superresolve(task: ConfigDict, shape: ImageShape, array: None) -> Measured:
    height, width, channels = shape
    factor = task.factor
    if factor < 2 or height % factor or width % factor:
        raise InputError(f'task.factor: {factor}; above 1, and a divisor of {height} and {width}')
    small = (height // factor, width // factor, channels)
    return Measured(measurements.block_mean(height, width, factor), small)


def _deblur(task: ConfigDict, shape: ImageShape, array: None) -> Measured:
    return Measured(measurements.gaussian_blur(*shape[:2], task.blur_std), shape)


def _linear(task: ConfigDict, shape: ImageShape, array: np.ndarray) -> Measured:
    size = int(np.prod(shape))
    if array.ndim != 2 or array.shape[1] != size or array.dtype.kind not in 'fiu':
        raise InputError(
            f'task.matrix: {task.matrix} is {array.dtype} {array.shape}; numbers [m, {size}] needed'
        )
    return Measured(measurements.matrix(array, shape), None)


MEASURED_TASKS = {
    'inpaint': _inpaint,
    'colourise': _colourise,
    'superresolve': _superresolve,
    'deblur': _deblur,
    'linear': _linear,
}
TASKS = {'class': None, **MEASURED_TASKS}


def create_measurement(task: ConfigDict, shape: ImageShape, array: np.ndarray | None) -> Measured:
    """What a task measures of images of `shape`; `array` is the mask or the matrix, if any."""
    return MEASURED_TASKS[task.name](task, shape, array)


def observe(
    measurement: Measurement,
    key: OneKey,
    x: Float[Array, 'images *shape'],
    noise_std: float,
) -> Float[Array, 'images *measurement']:
    """Measurements A x + noise, the same of an image whatever others there are."""
    y = measurement.measure(x)
    return y + noise_std * keys.normal(keys.per_image(key, len(y)), 0, y.shape[1:])

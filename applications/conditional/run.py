"""Conditional sampling: what `--mode=sample --task=NAME` draws.

Images of a class, or images that have the measurements of a user's own.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from applications.conditional import conditioning
from applications.conditional.conditioning import Given, Measured
from choices import InputError
from datasets import loading, masks
from datasets.classes import Classes
from datasets.loading import DataError
from devices import processes, sharding
from experiments import image_drawing, reading, run_files, trained
from experiments.classifier import Classifier
from experiments.experiment import Drawing, Shown
from experiments.score_model import ScoreModel
from guidance.measurements import Measurement
from reports import pictures
from shapes import HostPixels, ImageShape
from storage import files, fingerprints
from training import Params

# The number of the key of noise in measurements; those of images count from 0.
MEASUREMENT = 2**32 - 1
MOST_COLUMNS = 20  # of a picture that has one for each class


def create_drawing(
    config: ConfigDict, model: ScoreModel, mesh: Mesh, trained_with: Classes
) -> Drawing:
    """Images as config.task says; InputError if that cannot be."""
    conditioning.check_fields(config, model)
    if config.task.name == 'class':
        return class_drawing(config, model, mesh, trained_with)
    return measured_drawing(config, model, mesh)


def class_drawing(
    config: ConfigDict, model: ScoreModel, mesh: Mesh, trained_with: Classes
) -> Drawing:
    """Images of the classes that there are; a picture of them with their names, and their accuracy
    if there is a classifier.
    """
    classifier, params, known = None, None, trained_with
    if config.task.classifier is not None:
        path = files.user_path(config.task.classifier, 'task.classifier')
        classifier, params = trained.load(
            'task.classifier', path, model.image_shape, model.format.centered
        )
        params = sharding.put(params, sharding.copied(mesh))
        if not model.num_classes:
            if not classifier.knows_noise:
                raise InputError(
                    f'task.classifier: {path} was trained with training.noise = False, and cannot '
                    'guide noisy images'
                )
            known = processes.from_first(lambda: run_files.kept_classes(path))
    existing = conditioning.existing(config, model, classifier, known)
    draw = conditioning.create_class_sampler(config, model, classifier, existing)

    def show(pixels, index):
        labels = np.asarray(conditioning.in_turn(existing)(index))
        shown = in_place(pixels, index, config.sampling.num_samples)[: pictures.most(pixels.shape)]
        sheet = class_sheet(shown, [known.name(label) for label in existing])
        note = None
        if classifier is not None:
            share = accuracy(classifier, params, pixels, labels, mesh)
            note = f'{share:.1%} are of their class to {config.task.classifier}'
        return Shown(sheet, {'labels': labels}, note)

    num = config.sampling.num_samples
    given = Given(classifier=params)
    return _drawing(config, model, 'class', num, draw, given, show, np.array(existing))


def class_sheet(pixels: HostPixels, names: list[str]) -> HostPixels:
    """Images of these classes in turn, with their names: a column for each class, unless there are
    many.
    """
    if 1 < len(names) <= MOST_COLUMNS:
        return pictures.captioned(pixels, names, len(names))
    return pictures.captioned(pixels, [names[i % len(names)] for i in range(len(pixels))])


def accuracy(
    classifier: Classifier, params: Params, pixels: HostPixels, labels: np.ndarray, mesh: Mesh
) -> float:
    """The share of images that are most probably of their class."""

    def log_probs(params, pixels):
        x = classifier.format.to_float(pixels)
        return classifier.class_log_probs(params)(x, jnp.zeros(len(x)))

    found = jax.jit(log_probs, out_shardings=sharding.copied(mesh))(params, pixels)
    return float(np.mean(np.asarray(found).argmax(1) == labels))


def measured_drawing(config: ConfigDict, model: ScoreModel, mesh: Mesh) -> Drawing:
    """Images with given measurements; each row of the picture has the original, if there is one,
    the measurement, and what was drawn.
    """
    task = config.task
    array = load_array(config)
    measured = conditioning.create_measurement(task, model.image_shape, array)
    draw = conditioning.create_measured_sampler(config, model, measured.measurement)
    originals, y = load_measurements(config, model, measured)

    def show(pixels, index):
        arrays = {'measurements': np.asarray(y)}
        drawn = in_place(pixels, index, num).reshape(len(y), task.samples_each, *model.image_shape)
        if len(index) == num:
            arrays['samples'] = drawn
        shown = np.asarray(model.format.to_uint8(measured.measurement.picture(y)))
        columns = [shown[:, None], drawn]
        if originals is not None:
            columns, arrays['originals'] = [originals[:, None], *columns], originals
        rows = np.concatenate(columns, axis=1)
        rows = rows[: max(1, pictures.most(pixels.shape) // rows.shape[1])]
        sheet = pictures.grid(rows.reshape(-1, *model.image_shape), rows.shape[1])
        return Shown(sheet, arrays)

    num, name = len(y) * task.samples_each, f'{task.name}_{task.method}'
    drawing = _drawing(config, model, name, num, draw, Given(y=y), show, array)
    return dataclasses.replace(drawing, is_bounded=True)


def _drawing(config, model, name, num, draw, given, show, array=None) -> Drawing:
    def in_8_bits(params, key, indices, given):
        return image_drawing.in_8_bits(model.format, draw(params, key, indices, given))

    batch_size = config.sampling.batch_size
    remedy = image_drawing.remedy(config.sampling, config.sampling.method)
    sampler = image_drawing.create_sampler(config, model.sde, config.sampling.method)
    depends_on = [
        repr((sampler, model.network.precision)),
        sorted(config.task.items()),
        fingerprints.of_arrays((given, array)),
    ]
    fingerprint = repr(depends_on)
    seed = image_drawing.seed(config)
    steps = image_drawing.own_fields(config.sampling, config.sampling.method).get('steps')
    return Drawing(name, num, batch_size, seed, in_8_bits, fingerprint, given, show, remedy, steps)


def in_place(pixels: HostPixels, index: np.ndarray, num: int) -> HostPixels:
    """`num` images, of which those with these numbers are there."""
    found = np.tile(pictures.absent(pixels.shape[1:]), (num, 1, 1, 1))
    found[index] = pixels
    return found


def load_array(config: ConfigDict) -> np.ndarray | None:
    """The mask of `inpaint`, or the matrix of `linear`."""
    task = config.task
    if task.name == 'linear':
        return load_numbers('task.matrix', task.matrix)
    if task.name != 'inpaint':
        return None
    try:
        return masks.load(task.mask, config.data.image_size)
    except DataError as error:
        raise InputError(f'task.mask: {error}') from error


def load_numbers(field: str, path: str) -> np.ndarray:
    """An array of an .npy file."""
    try:
        return np.load(files.user_path(path, field), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f'{field}: {path} is no .npy file of numbers ({error})') from error


def load_measurements(
    config: ConfigDict, model: ScoreModel, measured: Measured
) -> tuple[np.ndarray | None, jax.Array]:
    """The original images, if they are not measurements already, and measurements of all."""
    task, measurement = config.task, measured.measurement
    seed = config.seed if task.seed is None else task.seed
    key = jax.random.fold_in(jax.random.key(seed), MEASUREMENT)
    if not task.measured:
        pixels = load_pictures(config, model.image_shape)
        x = model.format.to_float(jnp.asarray(pixels))
        return pixels, conditioning.observe(measurement, key, x, task.noise_std)
    if task.images is None:
        raise InputError('task.images: images that are measured already are needed')
    if measured.shape is None:
        return None, _measured_vectors(task, measurement, model)
    pixels = load_pictures(config, measured.shape)
    y = model.format.to_float(jnp.asarray(pixels))
    return None, measurement.measure(y) if task.name == 'inpaint' else y


def _measured_vectors(task: ConfigDict, measurement: Measurement, model: ScoreModel) -> jax.Array:
    y = load_numbers('task.images', task.images)
    blank = jnp.zeros((1, *model.image_shape))
    length = jax.eval_shape(measurement.measure, blank).shape[1]
    if y.ndim != 2 or y.shape[1] != length:
        raise InputError(f'task.images: {task.images} is {y.shape}; [images, {length}] needed')
    return jnp.asarray(y[: task.num_images], jnp.float32)


def load_pictures(config: ConfigDict, shape: ImageShape) -> HostPixels:
    """The first images of task.images, or of the test split, brought to one shape."""
    task, data = config.task, config.data
    try:
        if task.images is None:
            found = reading.load_images(data, 'test')
        else:
            # What is measured already is not brought to another size: it would be something else.
            fit, crop_size = (None, None) if task.measured else (data.fit, data.crop_size)
            found = loading.load_all(
                task.images, shape[:2], shape[2], fit, crop_size, data.max_pixels
            )
            processes.tell_once(f'task.images {found.found()}')
        return found.gather(np.arange(min(task.num_images, len(found))))['image']
    except DataError as error:
        if task.images is None:
            raise
        message = str(error).replace('data.source', 'task.images')
        named = message if 'task.images' in message else f'task.images: {message}'
        raise InputError(named) from error

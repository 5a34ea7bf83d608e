"""Conditional sampling: what `--mode=sample --task=NAME` does.

Draws images of a class, or images that have the measurements of a user's own, and leaves in
`samples/` the grid that shows them and an .npz.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import run_lib
from applications.conditional import conditioning
from applications.conditional.conditioning import Given, Measured
from choices import InputError
from datasets import loading
from datasets.loading import DataError
from devices import processes, sharding
from experiments import trained
from experiments.experiment import ScoreModel, create_experiment
from guidance.measurements import Measurement
from reports import pictures

# The number of the key of noise in measurements; those of images count from 0.
MEASUREMENT = 2**32 - 1


def sample(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Draws images from a checkpoint, to `samples/<step>_<task or method>.png` and `.npz`."""
    if 'task' not in config or config.task.name == 'none':
        return run_lib.sample(config, workdir)
    mesh = sharding.create_mesh(**config.mesh)
    model = create_experiment(config)
    conditioning.check_fields(config, model)
    run_lib.check_batch_sizes(mesh, config, 'sampling.batch_size')
    draw = sample_class if config.task.name == 'class' else sample_measured
    draw(config, workdir, model, mesh)


def sample_class(config: ConfigDict, workdir: pathlib.Path, model: ScoreModel, mesh: Mesh) -> None:
    """Images of classes; a grid of them, ten a row, and their accuracy if there is a classifier."""
    classifier, params = None, None
    if config.task.classifier is not None:
        path = pathlib.Path(config.task.classifier)
        classifier, params = trained.load(
            'task.classifier', path, model.image_shape, model.centered
        )
        params = sharding.put(params, sharding.copied(mesh))
    draw = conditioning.create_class_sampler(config, model, classifier)
    num_classes = model.num_classes or classifier.network.num_classes
    state = run_lib.restore(config, workdir, model, mesh)
    given = Given(state.ema_params, params)
    drawn = run_lib.draw_samples(config, model, draw, given, mesh, 'class')
    pixels = drawn.pixels
    labels = np.asarray(conditioning.labels(config, num_classes)(jnp.arange(len(pixels))))
    found = {'samples': pixels, 'labels': labels, 'nfe': drawn.nfe}
    columns = num_classes if config.task.label is None and num_classes <= 20 else None
    stem = write(workdir, int(state.step), 'class', pictures.grid(pixels, columns), found)
    run_lib.tell_drawn(drawn, stem)
    if classifier is not None:
        log_probs = jax.jit(
            lambda params, pixels: classifier.class_log_probs(params)(
                pixels.to_float(pixels, model.centered), jnp.zeros(len(pixels))
            ),
            out_shardings=sharding.copied(mesh),
        )(params, pixels)
        accuracy = np.mean(np.asarray(log_probs).argmax(1) == labels)
        print(f'{accuracy:.1%} are of their class to {config.task.classifier}')


def sample_measured(
    config: ConfigDict, workdir: pathlib.Path, model: ScoreModel, mesh: Mesh
) -> None:
    """Images with given measurements; each row of the grid has the original, if there is one, the
    measurement, and what was drawn.
    """
    task = config.task
    measured = conditioning.create_measurement(task, model.image_shape, load_array(config))
    draw = conditioning.create_measured_sampler(config, model, measured.measurement)
    originals, y = load_measurements(config, model, measured)
    state = run_lib.restore(config, workdir, model, mesh)
    given, num = Given(state.ema_params, y=y), len(y) * task.samples_each
    drawn = run_lib.draw_samples(config, model, draw, given, mesh, task.name, num)

    pixels = drawn.pixels.reshape(len(y), task.samples_each, *model.image_shape)
    shown = np.asarray(pixels.to_uint8(measured.measurement.picture(y), model.centered))
    columns = [shown[:, None], pixels]
    found = {'samples': pixels, 'measurements': y, 'nfe': drawn.nfe}
    if originals is not None:
        columns, found = [originals[:, None], *columns], {'originals': originals, **found}
    rows = np.concatenate(columns, axis=1)
    sheet = pictures.grid(rows.reshape(-1, *model.image_shape), rows.shape[1])
    stem = write(workdir, int(state.step), f'{task.name}_{task.method}', sheet, found)
    run_lib.tell_drawn(drawn, stem)


def load_array(config: ConfigDict) -> np.ndarray | None:
    """The mask of `inpaint`, or the matrix of `linear`."""
    task = config.task
    if task.matrix is not None:
        return load_numbers('task.matrix', task.matrix)
    if task.mask is None:
        return None
    try:
        return loading.load_mask(task.mask, config.data.image_size)
    except DataError as error:
        raise InputError(f'task.mask: {error}') from error


def load_numbers(field: str, path: str) -> np.ndarray:
    """An array of an .npy file."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f'{field}: {path} is no .npy file of numbers ({error})') from error


def load_measurements(
    config: ConfigDict, model: ScoreModel, measured: Measured
) -> tuple[np.ndarray | None, jax.Array]:
    """The original images, if they are not measurements already, and measurements of all."""
    task, measurement = config.task, measured.measurement
    key = jax.random.fold_in(jax.random.key(config.seed), MEASUREMENT)
    if not task.measured:
        pixels = load_pictures(config, model.image_shape)
        x = pixels.to_float(jnp.asarray(pixels), model.centered)
        return pixels, conditioning.observe(measurement, key, x, task.noise_std)
    if task.images is None:
        raise InputError('task.images: images that are measured already are needed')
    if measured.shape is None:
        return None, _measured_vectors(task, measurement, model)
    pixels = load_pictures(config, measured.shape)
    y = pixels.to_float(jnp.asarray(pixels), model.centered)
    return None, measurement.measure(y) if task.name == 'inpaint' else y


def _measured_vectors(task: ConfigDict, measurement: Measurement, model: ScoreModel) -> jax.Array:
    y = load_numbers('task.images', task.images)
    blank = jnp.zeros((1, *model.image_shape))
    length = jax.eval_shape(measurement.measure, blank).shape[1]
    if y.ndim != 2 or y.shape[1] != length:
        raise InputError(f'task.images: {task.images} is {y.shape}; [images, {length}] needed')
    return jnp.asarray(y[: task.num_images], jnp.float32)


def load_pictures(config: ConfigDict, shape: tuple[int, int, int]) -> np.ndarray:
    """The first images of task.images, or of the test split, brought to one shape."""
    task, data = config.task, config.data
    try:
        if task.images is None:
            found = run_lib.load_images(config, 'test')
        else:
            found = loading.load_all(task.images, shape[:2], shape[2], data.fit, data.crop_size)
        return found.gather(np.arange(min(task.num_images, len(found))))['image']
    except DataError as error:
        if task.images is None:
            raise
        message = str(error).replace('data.source', 'task.images')
        named = message if 'task.images' in message else f'task.images: {message}'
        raise InputError(named) from error


def write(
    workdir: pathlib.Path, step: int, name: str, sheet: np.ndarray, arrays: dict
) -> pathlib.Path:
    """`samples/<step>_<name>.png` and `.npz`; their path without the suffix."""
    stem = workdir / 'samples' / f'{step:07d}_{name}'
    processes.on_first(run_lib.write_drawn, workdir, stem, sheet, arrays)
    return stem

"""Purification of a user's images: `--mode=sample --task=purify`."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import keys
from applications.conditional import conditioning
from applications.conditional import run as conditional
from applications.purification.settings import create_purifier, lowest
from experiments import image_drawing
from experiments.experiment import Drawing, Shown
from experiments.score_model import ScoreModel
from reports import pictures
from storage import fingerprints


def create_drawing(config: ConfigDict, model: ScoreModel) -> Drawing:
    """Images of config.task, purified; each row of the picture has the image, the same in the noise
    of its first sample, and what the samples of it are.
    """
    task, label = config.task, conditioning.one_label(config, model)
    purifier = create_purifier(config.purify, config, model, lowest(model.format))
    originals = conditional.load_pictures(config, model.image_shape)
    x, seed = model.format.to_float(jnp.asarray(originals)), image_drawing.seed(config)

    def draw(params, key, indices, given):
        image_keys, process = keys.of_images(key, indices), model.process(params, label)
        found = purifier(image_keys, process, given[indices // task.samples_each])
        return image_drawing.in_8_bits(model.format, found)

    def show(pixels, index):
        each, num = task.samples_each, len(originals)
        drawn = conditional.in_place(pixels, index, num * each)
        first = keys.of_images(jax.random.key(seed), each * jnp.arange(num))
        noised = np.asarray(model.format.to_uint8(purifier.noised(first, x)))
        columns = [originals, noised, *drawn.reshape(num, each, *model.image_shape).swapaxes(0, 1)]
        return Shown(in_rows(columns), {'originals': originals})

    return Drawing(
        name=f'purify_{config.purify.method}',
        num=len(originals) * task.samples_each,
        batch_size=config.sampling.batch_size,
        seed=seed,
        draw=draw,
        fingerprint=repr((purifier, model.network.precision, label, fingerprints.of_arrays(x))),
        given=x,
        show=show,
        is_bounded=True,
    )


def in_rows(columns: list[np.ndarray]) -> np.ndarray:
    """A picture with these images [images, ...] side by side, as many rows as there is room for."""
    rows = np.stack(columns, axis=1)
    shape = rows.shape[2:]
    most = max(1, pictures.most((0, *shape)) // len(columns))
    return pictures.grid(rows[:most].reshape(-1, *shape), len(columns))

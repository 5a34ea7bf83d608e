"""Pictures of a latent score model for its report: test images that were encoded and decoded, and
the arcs between the latents of their codes, which the probability-flow ODE makes of the codes.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import keys
from datasets import loading
from evaluation import left_out
from experiments import exhibits
from experiments.exhibits import PAIRS, POINTS
from experiments.experiment import Batch
from experiments.latent_model import LatentModel
from reports import pictures
from shapes import OneKey
from solvers import endings, latents
from solvers.ode import ODESolver


def create(
    model: LatentModel, solver: ODESolver, t_min: float | None
) -> Callable[[Any, OneKey, Batch], dict[str, Array]]:
    """`exhibits(params, key, ends)`, of the test images exhibits.ENDS, by the ODE from and to
    `t_min` (None: the SDE's).

    `images` are these, binarised if the model's are, and `reconstructions` the expected pixels of
    one code of each; `interpolation` [pair, point, *shape] those of the codes on an arc, with the
    means of finer latents. The arrays of left_out.py are of all points.
    """
    sde, code_shape = model.codes.sde, model.codes.image_shape
    t_min = sde.t_min if t_min is None else t_min

    def of_ends(params, key, batch):
        image_keys = keys.per_image(key, len(batch['image']))
        keys_pixels, keys_codes = keys.split(image_keys, 2)
        pixels = model.of_each(keys_pixels, batch['image'])
        noises = model.noises_of_each(keys_codes)
        (codes, *_), features = model.through(params, pixels, noises)
        process = model.process(params)
        encoded = latents.encode(process, codes.z, solver=solver, t_min=t_min)
        first, second = jnp.split(encoded.y, 2)
        arcs = latents.interpolate(first, second, jnp.linspace(0, 1, POINTS)).swapaxes(0, 1)
        points = arcs.reshape(-1, *code_shape)
        decoded = latents.decode(process, points, solver=solver, t_min=t_min)
        ending = endings.first_of(exhibits.along_arcs(encoded.ending), decoded.ending)
        finer = [jnp.zeros((len(points), *shape)) for shape in model.autoencoder.latent_shapes[1:]]
        shown = model.mean(model.decode(params, [decoded.y, *finer]))
        return {
            'images': pixels,
            'reconstructions': model.format.to_uint8(model.mean(features)),
            'interpolation': model.format.to_uint8(shown).reshape(
                PAIRS, POINTS, *model.image_shape
            ),
            **left_out.arrays(ending, shown),
        }

    return of_ends


def write(
    directory: pathlib.Path, found: dict[str, np.ndarray], train_images: loading.Images
) -> None:
    """`reconstructions.png`, under the images, and `interpolation.png`.

    Something else stands in the place of points that are left out.
    """
    absent = pictures.absent(train_images.shape)
    arcs = found['interpolation'].reshape(-1, *train_images.shape)
    arcs = np.where(left_out.kept(found)[:, None, None, None], arcs, absent)
    both = np.concatenate([found['images'], found['reconstructions']])
    for name, images in (('reconstructions', both), ('interpolation', arcs)):
        pictures.save_png(directory / f'{name}.png', pictures.grid(images, POINTS))

"""Pictures of a score model for its report: how images come out of noise, the arcs between the
latent codes of images, and the training images that are nearest to samples.

All by the probability-flow ODE, in one program.
"""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

import keys
from datasets import loading
from evaluation import left_out
from experiments.experiment import Batch
from experiments.score_model import ScoreModel
from reports import pictures
from sde_lib import Number, expand
from shapes import HostPixels, OneKey
from solvers import endings, latents
from solvers.endings import Ending
from solvers.grids import TimeGrid
from solvers.ode import ODESolver

PAIRS = 4  # of test images, between which latent codes are interpolated
POINTS = 8  # of an arc, its ends included
SAMPLES = 8  # for the neighbours, and the first few for the strip
STRIPS = 3
FRAMES = 10  # of a strip
NEIGHBOURS = 5
SEARCHED = 10_000  # training images, the first ones, among which neighbours are looked for
# The test images whose latent codes are the ends of arcs.
ENDS = np.arange(2 * PAIRS)


def create(
    model: ScoreModel, solver: ODESolver, t_min: float | None
) -> Callable[[Any, OneKey, Batch], dict[str, Array]]:
    """`exhibits(params, key, ends)`, of the test images ENDS, down to `t_min` (None: the SDE's).

    `interpolation` [pair, point, *shape] are images of the codes on an arc; `samples` [image,
    *shape]; `denoising` [strip, 2, frame, *shape] are states on their way, scaled to the same
    range, and what the network takes to be the images under them. The arrays of left_out.py are of
    all points of arcs, and of all samples after them.
    """
    sde = model.sde
    t_min = sde.t_min if t_min is None else t_min
    times = TimeGrid(FRAMES - 1, 'log_snr').times(sde, t_min)

    def encode_one(params, x, label):
        process = model.process(params, label)
        found = latents.encode(process, x[None], solver=solver, t_min=t_min)
        return jax.tree.map(lambda a: a[0], (found.y, found.ending))

    def decode_one(params, code, label):
        process = model.process(params, label)
        found = latents.decode(process, code[None], solver=solver, t_min=t_min, save=times)
        states, ending = found.y, jax.tree.map(lambda a: a[0], found.ending)
        denoised = process.denoise(states[0], times)
        scale = jnp.sqrt(sde.alpha(times) ** 2 + sde.sigma(times) ** 2)
        shown = states[0] / expand(scale, denoised), denoised
        frames = jnp.stack([model.format.to_uint8(images) for images in shown])
        return frames, left_out.are_finite(*(each[None] for each in shown))[0], ending

    encode, decode = (jax.vmap(one, (None, 0, 0)) for one in (encode_one, decode_one))

    def exhibits(params, key, batch):
        classes = model.classes(batch)
        x = model.format.to_float(batch['image'])
        of_images, encoding = encode(params, x, classes)
        first, second = jnp.split(of_images, 2)
        arcs = latents.interpolate(first, second, jnp.linspace(0, 1, POINTS)).swapaxes(0, 1)
        noise = sde.prior_std * keys.normal(keys.per_image(key, SAMPLES), 0, model.image_shape)
        codes = jnp.concatenate([arcs.reshape(-1, *model.image_shape), noise])
        if classes is not None:
            # Of an arc, the class of its first end.
            drawn = jnp.arange(SAMPLES) % model.num_classes
            classes = jnp.concatenate([jnp.repeat(classes[:PAIRS], POINTS), drawn])
        frames, are_finite, ending = decode(params, codes, classes)
        ending = endings.first_of(_with_samples(along_arcs(encoding), sde.T), ending)
        last, of_samples = frames[:, 1, -1], frames[PAIRS * POINTS :]
        return {
            'interpolation': last[: PAIRS * POINTS].reshape(PAIRS, POINTS, *model.image_shape),
            'samples': last[PAIRS * POINTS :],
            'denoising': of_samples[:STRIPS],
            **ending._asdict(),
            'is_finite': are_finite,
        }

    return exhibits


def along_arcs(encoding: Ending) -> Ending:
    """The endings of the codes that points of arcs are decoded from: of a point, those of both ends
    of its arc."""
    halves = (Ending(*parts) for parts in zip(*(jnp.split(a, 2) for a in encoding), strict=True))
    return jax.tree.map(lambda a: jnp.repeat(a, POINTS), endings.first_of(*halves))


def _with_samples(of_arcs: Ending, t_end: Number) -> Ending:
    """The endings of all codes; samples have no more to do to get theirs."""
    of_samples = endings.at_the_end(t_end, 0, SAMPLES)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), of_arcs, of_samples)


def write(
    directory: pathlib.Path, found: dict[str, np.ndarray], train_images: loading.Images
) -> None:
    """`denoising.png`, `interpolation.png`, and `neighbours.png`: samples in the first column.

    Something else stands in the place of images that are left out.
    """
    is_point, is_sample = np.split(left_out.kept(found), [PAIRS * POINTS])
    absent = pictures.absent(train_images.shape)

    def mask(images, is_there):
        return np.where(is_there[..., None, None, None], images, absent)

    found = {
        'samples': mask(found['samples'], is_sample),
        'interpolation': mask(found['interpolation'], is_point.reshape(PAIRS, POINTS)),
        'denoising': mask(found['denoising'], is_sample[:STRIPS, None, None]),
    }
    near = mask(nearest(found['samples'], train_images), is_sample[:, None])
    neighbours = np.concatenate([found['samples'][:, None], near], axis=1)
    for name, rows in (
        ('denoising', found['denoising'].reshape(2 * STRIPS, -1, *train_images.shape)),
        ('interpolation', found['interpolation']),
        ('neighbours', neighbours),
    ):
        sheet = pictures.grid(rows.reshape(-1, *train_images.shape), rows.shape[1])
        pictures.save_png(directory / f'{name}.png', sheet)


def nearest(pixels: HostPixels, data: loading.Images) -> UInt8[np.ndarray, 'num NEIGHBOURS h w c']:
    """The images of least Euclidean distance among the first SEARCHED, nearest first."""
    wanted = pixels.reshape(len(pixels), -1).astype(np.float32)
    indices = np.arange(min(SEARCHED, len(data)))
    distances = np.concatenate(
        [_distances(wanted, data.gather(rows)['image']) for rows in _chunks(indices)], axis=1
    )
    found = np.argsort(distances, axis=1)[:, :NEIGHBOURS]
    return np.stack([data.gather(indices[rows])['image'] for rows in found])


def _distances(
    wanted: Float[np.ndarray, 'num dim'], pixels: HostPixels
) -> Float[np.ndarray, 'num others']:
    """Squared distances of all pairs."""
    others = pixels.reshape(len(pixels), -1).astype(np.float32)
    squares = (wanted**2).sum(1)[:, None] + (others**2).sum(1)
    return squares - 2 * wanted @ others.T


def _chunks(indices: Int[np.ndarray, 'num']) -> list[Int[np.ndarray, 'part']]:
    return np.array_split(indices, math.ceil(len(indices) / 500))

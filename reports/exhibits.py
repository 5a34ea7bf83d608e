"""What the report shows of a score model besides numbers: how images come out of noise, the arcs
between the latent codes of images, and the training images that are nearest to samples.

All by the probability-flow ODE, in one program.
"""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8
from ml_collections import ConfigDict

import keys
from datasets import loading, quantization
from experiments.experiment import Batch, ScoreModel, or_default
from reports import pictures
from sde_lib import expand
from solvers import grids, latents

PAIRS = 4  # of test images, between which latent codes are interpolated
POINTS = 8  # of an arc, its ends included
SAMPLES = 8  # for the neighbours, and the first few for the strip
STRIPS = 3
FRAMES = 10  # of a strip
NEIGHBOURS = 5
SEARCHED = 10_000  # training images, the first ones, among which neighbours are looked for
SOLVER = 'tsit5'
# The test images whose latent codes are the ends of arcs.
ENDS = np.arange(2 * PAIRS)

Pixels = UInt8[np.ndarray, 'num height width channels']


def create(
    config: ConfigDict, model: ScoreModel
) -> Callable[[Any, Key[Array, ''], Batch], dict[str, UInt8[Array, '...']]]:
    """`exhibits(params, key, ends)`, of the test images ENDS.

    `interpolation` [pair, point, *shape] are images of the codes on an arc; `samples` [image,
    *shape]; `denoising` [strip, 2, frame, *shape] are states on their way, scaled to the same
    range, and what the network takes to be the images under them.
    """
    fields, sde = config.sampling, model.sde
    t_min = or_default(fields.t_min, sde.t_min)
    options = {
        'sde': sde,
        't_min': t_min,
        'solver': SOLVER,
        'rtol': fields.rtol,
        'atol': fields.atol,
    }
    times = grids.create(grids.TIME_GRIDS['log_snr'], sde, FRAMES - 1, t_min)

    def encode_one(params, x, label):
        code, _ = latents.encode(model.score_fn(params, label), x[None], **options)
        return code[0]

    def decode_one(params, code, label):
        score_fn = model.score_fn(params, label)
        states, _ = latents.decode(score_fn, code[None], save=times, **options)
        denoised = sde.denoise(states[0], times, score_fn(states[0], times))
        scale = jnp.sqrt(sde.alpha(times) ** 2 + sde.sigma(times) ** 2)
        return jnp.stack([states[0] / expand(scale, denoised), denoised])

    encode, decode = (jax.vmap(one, (None, 0, 0)) for one in (encode_one, decode_one))

    def exhibits(params, key, batch):
        classes = model.classes(batch)
        x = quantization.to_float(batch['image'], model.centered)
        first, second = jnp.split(encode(params, x, classes), 2)
        arcs = latents.interpolate(first, second, jnp.linspace(0, 1, POINTS)).swapaxes(0, 1)
        noise = sde.prior_std * keys.normal(keys.per_image(key, SAMPLES), 0, model.image_shape)
        codes = jnp.concatenate([arcs.reshape(-1, *model.image_shape), noise])
        if classes is not None:
            # Of an arc, the class of its first end.
            drawn = jnp.arange(SAMPLES) % model.num_classes
            classes = jnp.concatenate([jnp.repeat(classes[:PAIRS], POINTS), drawn])
        frames = quantization.to_uint8(decode(params, codes, classes), model.centered)
        last, of_samples = frames[:, 1, -1], frames[PAIRS * POINTS :]
        return {
            'interpolation': last[: PAIRS * POINTS].reshape(PAIRS, POINTS, *model.image_shape),
            'samples': last[PAIRS * POINTS :],
            'denoising': of_samples[:STRIPS],
        }

    return exhibits


def write(
    directory: pathlib.Path, found: dict[str, np.ndarray], train_images: loading.Images
) -> None:
    """`denoising.png`, `interpolation.png`, and `neighbours.png`: samples in the first column."""
    near = nearest(found['samples'], train_images)
    neighbours = np.concatenate([found['samples'][:, None], near], axis=1)
    for name, rows in (
        ('denoising', found['denoising'].reshape(2 * STRIPS, -1, *train_images.shape)),
        ('interpolation', found['interpolation']),
        ('neighbours', neighbours),
    ):
        sheet = pictures.grid(rows.reshape(-1, *train_images.shape), rows.shape[1])
        pictures.save_png(directory / f'{name}.png', sheet)


def nearest(pixels: Pixels, data: loading.Images) -> UInt8[np.ndarray, 'num NEIGHBOURS h w c']:
    """The images of least Euclidean distance among the first SEARCHED, nearest first."""
    wanted = pixels.reshape(len(pixels), -1).astype(np.float32)
    indices = np.arange(min(SEARCHED, len(data)))
    distances = np.concatenate(
        [_distances(wanted, data.gather(rows)['image']) for rows in _chunks(indices)], axis=1
    )
    found = np.argsort(distances, axis=1)[:, :NEIGHBOURS]
    return np.stack([data.gather(indices[rows])['image'] for rows in found])


def _distances(
    wanted: Float[np.ndarray, 'num dim'], pixels: Pixels
) -> Float[np.ndarray, 'num others']:
    """Squared distances of all pairs."""
    others = pixels.reshape(len(pixels), -1).astype(np.float32)
    squares = (wanted**2).sum(1)[:, None] + (others**2).sum(1)
    return squares - 2 * wanted @ others.T


def _chunks(indices: Int[np.ndarray, 'num']) -> list[Int[np.ndarray, 'part']]:
    return np.array_split(indices, math.ceil(len(indices) / 500))

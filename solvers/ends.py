"""Where every sampler begins and ends: noise for each image, the prior at T, the last denoising."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

import keys
from parameterization import ScoreFn
from sde_lib import SDE, State, at


class Samples(NamedTuple):
    """Samples at t_min, the network evaluations that each of them took, and, if asked for, the
    states on the way from T.

    `rounds` are those of its evaluations that had to wait for each other, of solvers that are
    parallel in time.
    """

    x: State
    nfe: Int[Array, 'batch']
    trajectory: Float[Array, 'times batch *shape'] | None = None
    rounds: Int[Array, 'batch'] | None = None


def noise_source(
    image_keys: Key[Array, 'batch'], shape: tuple[int, ...], temperature: float
) -> Callable[[int], State]:
    """`draw(i)`: the i-th normal noise for images of `shape`, each from its own key, times
    `temperature`.

    Draw 0 is for the prior. A temperature below 1 gives likelier and less varied images.
    """
    return lambda i: temperature * keys.normal(image_keys, i, shape)


def denoise(sde: SDE, score_fn: ScoreFn, x: State, t: float) -> State:
    """E[x_0 | x_t = x], for one evaluation."""
    t = at(t, x)
    return sde.denoise(x, t, score_fn(x, t))


def counted(x: State, nfe: int) -> Int[Array, 'batch']:
    """The same number of evaluations for each image."""
    return jnp.full(x.shape[0], nfe)

"""Weights of the examples of a batch, with which a step of SGD is one of another process.

All processes here are gradient steps on a weighted loss, mean_i w_i loss_i(x), with their own rate:

    SGD                      batch of B         w = 1                                  rate eta
    SVAG                     two batches of B   w = 2 r1 on the first, 2 r2 on the     rate eta / l
                                                second, r1, r2 = (1 +- sqrt(2 l - 1)) / 2
    noisy gradient descent   all N examples     w = 1 + sqrt(m N / B) (z - mean z),    rate eta / m
                                                z ~ N(0, I)

l (or m) steps of these are one of SGD. SVAG (Li, Malladi and Arora 2021, arXiv:2102.12470) keeps
the mean of the gradient, as r1 + r2 = 1, and gives l steps the covariance of one step of SGD, as
r1^2 + r2^2 = l. Its third cumulant falls as 1.5 / l, its fourth as 1 / (2 l): with growing l its
steps become small, and their noise Gaussian. Noisy gradient descent with m = 1 has Gaussian noise
of the covariance of SGD's and its steps; with growing m it is Euler-Maruyama's solution of the SDE.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from choices import ArgumentError
from shapes import PerImage, Scalar


class Pair(NamedTuple):
    """The factors of two independent gradients, of which their sum makes one of SVAG."""

    first: float
    second: float


def svag_pair(substeps: int) -> Pair:
    """(1 + sqrt(2 l - 1)) / 2 and (1 - sqrt(2 l - 1)) / 2 for l = `substeps`; 1 and 0 for l = 1.

    Raises ArgumentError if `substeps` is below 1.
    """
    check_substeps(substeps)
    root = math.sqrt(2 * substeps - 1)
    return Pair((1 + root) / 2, (1 - root) / 2)


def check_substeps(substeps: int) -> None:
    """Raises ArgumentError for fewer than one step in the place of one of SGD."""
    if substeps < 1:
        raise ArgumentError('substeps', f'{substeps}; a number of at least 1 needed')


def svag(num: int, substeps: int) -> PerImage:
    """The weights of SVAG for `num` examples, of which the first half is one batch and the second
    another; both have to be drawn independently of each other.

    Raises ArgumentError if `num` is odd, or `substeps` below 1.
    """
    if num % 2:
        raise ArgumentError('batch_size', f'{num}; even needed: SVAG takes two halves')
    pair = svag_pair(substeps)
    return 2 * jnp.repeat(jnp.array(pair), num // 2)


def noisy(z: PerImage, batch_size: int, substeps: int = 1) -> PerImage:
    """The weights of noisy gradient descent for all N examples: 1 + sqrt(m N / B) (z - mean z) with
    m = `substeps`, B = `batch_size` and `z` ~ N(0, I).

    The gradient of the weighted loss has covariance m / B Cov_i(grad loss_i), the examples taken
    with equal probability: that of m times a minibatch gradient of B, exactly, by one pass back.
    """
    check_substeps(substeps)
    return 1 + jnp.sqrt(substeps * len(z) / batch_size) * (z - z.mean())


def weighted_mean(losses: PerImage, weights: PerImage) -> Scalar:
    """The plain mean of the losses, whose gradient is that of mean_i w_i loss_i.

    A weighted mean of losses is noisy by itself; as a value the plain one says more.
    """
    weighted = jnp.mean(weights * losses)
    return weighted + lax.stop_gradient(losses.mean() - weighted)


def svag_of_gradients(substeps: int) -> optax.GradientTransformationExtraArgs:
    """SVAG as a link of an optax chain, for those who have two gradients: `update(g1, state,
    params, second=g2)` gives r1 g1 + r2 g2, for an optimiser at the rate eta / l.

    With l = `substeps` = 1 it gives g1. Raises ArgumentError if `substeps` is below 1.
    """
    pair = svag_pair(substeps)

    def update(updates, state, params=None, *, second, **_):
        def combined(g1, g2):
            return pair.first * g1 + pair.second * g2

        return (updates if substeps == 1 else jax.tree.map(combined, updates, second)), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)

"""Guidance by classes: scores of p(x_t | y) in place of that of p(x_t).

    grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t)

A classifier of noisy images knows the last term (classification.py), or the network both scores.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from parameterization import ScoreFn
from sde_lib import State

LogProb = Callable[[State, Float[Array, 'batch']], Float[Array, 'batch']]


def classifier_guidance(score_fn: ScoreFn, log_prob_fn: LogProb, scale: float = 1.0) -> ScoreFn:
    """grad log p(x_t) + scale grad log p(y | x_t) (Song et al. 2021, eq. 14; Dhariwal & Nichol
    2021).

    Exact at a scale of 1; above it, images are more typical of the class, and less varied.
    """

    def guided(x, t):
        return score_fn(x, t) + scale * jax.grad(lambda x: log_prob_fn(x, t).sum())(x)

    return guided


def classifier_free_guidance(conditional: ScoreFn, marginal: ScoreFn, scale: float) -> ScoreFn:
    """The score of p(x_t | y) at a scale of 1, and above it further away from that of p(x_t) (Ho &
    Salimans 2022, eq. 6, with w = scale - 1). Two evaluations.
    """

    def guided(x, t):
        score = marginal(x, t)
        return score + scale * (conditional(x, t) - score)

    return guided

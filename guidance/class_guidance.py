"""Guidance by classes: scores of p(x_t | y) in place of that of p(x_t).

    grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t)

A classifier of noisy images knows the last term (classification.py), or the network both scores.
"""

from collections.abc import Callable

import jax

from parameterization import Process
from shapes import PerImage, State

LogProb = Callable[[State, PerImage], PerImage]


def classifier_guidance(process: Process, log_prob: LogProb, scale: float = 1.0) -> Process:
    """grad log p(x_t) + scale grad log p(y | x_t) (Song et al. 2021, eq. 14; Dhariwal & Nichol
    2021), from `log_prob(x, t)` = log p(y | x_t) in nats.

    Exact at a scale of 1; above it, images are more typical of the class, and less varied.
    """

    def score(x, t):
        return process.score(x, t) + scale * jax.grad(lambda x: log_prob(x, t).sum())(x)

    return process.with_score(score)


def classifier_free_guidance(conditional: Process, marginal: Process, scale: float) -> Process:
    """The score of p(x_t | y) at a scale of 1, and above it further away from that of p(x_t) (Ho &
    Salimans 2022, eq. 6, with w = scale - 1). Two evaluations.
    """

    def score(x, t):
        of_all = marginal.score(x, t)
        return of_all + scale * (conditional.score(x, t) - of_all)

    return conditional.with_score(score)

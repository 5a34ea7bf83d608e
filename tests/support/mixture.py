"""The mixture that solvers and likelihoods are tested on."""

import jax

from datasets.mixtures import Mixture


def example(dim: int = 2) -> Mixture:
    """Three components around the origin, of unequal distances."""
    means = jax.random.normal(jax.random.key(7), (3, dim))
    return Mixture(means - means.mean(axis=0), 0.3)

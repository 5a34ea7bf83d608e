"""Processes that have come to rest: how long the parameters are, how much of the gradient is noise,
and what that says about the SDE and about scaling the batch.

    R = E |x|^2,    G = E |grad L(x)|^2,    N = E Tr Sigma(x).

For a loss that does not change with the length of x (normalised layers without an affine map, a
fixed last layer) the gradient is orthogonal to x, and with weight decay lambda exactly

    SGD    (2 lambda - eta lambda^2)     R = eta (G + N)
    SVAG   (2 lambda - eta lambda^2 / l) R = eta (G / l + N)
    SDE     2 lambda                     R = eta N,

noisy gradient descent and Euler-Maruyama with m steps as SVAG with l = m. Of these follow necessary
conditions (Li, Malladi and Arora 2021, section 5; derived in docs/svag.md). They are not
sufficient: what passes a test may fail all the same.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

from gradient_noise.chains import ExampleLoss, Examples
from shapes import Scalar
from training import Params

Number = float | Float[Array | np.ndarray, '*n']


class Statistics(NamedTuple):
    """|x|^2, |grad L|^2 and Tr Sigma of one x, or their means."""

    R: Number
    G: Number
    N: Number


def measured(
    loss: ExampleLoss, examples: Examples, batch_size: int, params: Params, at_once: int = 64
) -> Statistics:
    """The statistics of these parameters, for batches of `batch_size` that are drawn from the
    examples with replacement; exact, by the gradients of all examples, `at_once` in memory.
    """

    def of_example(example):
        gradient = jax.grad(loss)(params, example)
        return gradient, squared_norm(gradient)

    def of_block(carry, block):
        total, squares = carry
        gradients, norms = jax.vmap(of_example)(block)
        summed = jax.tree.map(lambda a, g: a + g.sum(0), total, gradients)
        return (summed, squares + norms.sum()), None

    num = len(jax.tree.leaves(examples)[0])
    size = max(d for d in range(1, min(at_once, num) + 1) if num % d == 0)
    blocks = jax.tree.map(lambda a: a.reshape(num // size, size, *a.shape[1:]), examples)
    (total, squares), _ = lax.scan(of_block, (optax.tree.zeros_like(params), jnp.zeros(())), blocks)
    G = squared_norm(total) / num**2
    return Statistics(squared_norm(params), G, (squares / num - G) / batch_size)


def squared_norm(tree: Params) -> Scalar:
    """The sum of the squares of all numbers."""
    return sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree))


def estimated(
    squared_length: Number, mean_of_squares: Number, square_of_mean: Number, num: int
) -> Statistics:
    """Unbiased estimates from the gradients g of `num` independent minibatches at the same x:
    the mean of |g|^2 is one of G + N, and |mean of g|^2 one of G + N / num.
    """
    G = (num * square_of_mean - mean_of_squares) / (num - 1)
    return Statistics(squared_length, G, mean_of_squares - G)


# What holds at rest


def drift_of_length(
    R: Number, rate: float, weight_decay: float, substeps: float | int = 1
) -> Number:
    """By how much weight decay shortens |x|^2 in a step of SGD, over the rate: (2 lambda - eta
    lambda^2 / l) R / eta. For the SDE `substeps` is infinite.
    """
    return (2 * weight_decay - rate * weight_decay**2 / substeps) * R / rate


def growth_of_length(G: Number, N: Number, substeps: float | int = 1) -> Number:
    """By how much gradients lengthen |x|^2, in the same unit: G / l + N. For the SDE `substeps` is
    infinite. At rest, and for a loss that does not change with the length, both are equal.
    """
    return G / substeps + N


# Necessary conditions


def least_noise(C: float) -> float:
    """The least N / G of SGD at which its SDE can have R, G and N within a factor C of SGD's:
    1 / (C^2 - 1).

    For R_sgd / R_sde = (G + N) / N_sde is at most C, and N_sde at most C N.
    """
    return 1 / (C**2 - 1)


def may_be_sde(G: Number, N: Number, C: float) -> bool | np.bool_ | Array:
    """Whether the SDE passes the test of `least_noise`; if not, it is off by more than C."""
    return N * (C**2 - 1) >= G


def largest_scaling(G: Number, N: Number, C: float) -> Number:
    """The largest k for which B -> k B and eta -> k eta can leave R, G and N within a factor C,
    from G and N at the small batch alone: C^2 (1 + N / G).

    For k (G_k + N_k) / (G + N) = R_k / R is at most C, and G_k at least G / C.
    """
    return C**2 * (1 + N / G)

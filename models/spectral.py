"""Spectral regularisation: a penalty on how much a network can stretch what goes through it
(Yoshida and Miyato 2017, arXiv:1705.10941; of NVAE, arXiv:2007.03898, and LSGM).

    penalty = sum over layers of sigma_max(W)  +  sum over normalisations of max |scale|

W is a layer's kernel as a matrix [all that comes in, features]. Its largest singular value is
|W u| for the u that the power iteration u <- W'W u / |W'W u| tends to. The gradient, with that u
held fixed, is that of the singular value itself.

The iteration begins with the same u in every step, and so needs no state of its own: products with
W alone cost little beside a batch through it.
"""

from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from shapes import Scalar

ITERATIONS = 32
KERNELS = ('kernel', 'W', 'weight')
SCALES = ('scale', 'gamma')


def penalty(params: Any, iterations: int = ITERATIONS) -> Scalar:
    """The penalty of all layers of a tree of parameters, in which a leaf's last name says what it
    is. The iteration finds a singular value from below.
    """
    kernels, total = defaultdict(list), jnp.zeros(())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = str(getattr(path[-1], 'key', path[-1]))
        if name in KERNELS and leaf.ndim > 1:
            matrix = leaf.reshape(-1, leaf.shape[-1])
            kernels[matrix.shape].append(matrix)
        elif name in SCALES:
            total += jnp.abs(leaf).max()
    # Those of one shape together, as deep networks have many.
    for matrices in kernels.values():
        total += largest_singular_values(jnp.stack(matrices), iterations).sum()
    return total


def largest_singular_values(
    w: Float[Array, 'layers rows columns'], iterations: int = ITERATIONS
) -> Float[Array, 'layers']:
    """That of each matrix; its gradient is the product of both singular vectors."""
    fixed = lax.stop_gradient(w)

    def iterate(_, u):
        return _unit(jnp.einsum('lrc,lr->lc', fixed, jnp.einsum('lrc,lc->lr', fixed, u)))

    # One that no symmetry of kernels is at right angles to.
    first = jax.random.normal(jax.random.key(0), (w.shape[0], w.shape[2]), w.dtype)
    u = lax.fori_loop(0, iterations, iterate, _unit(first))
    image = jnp.einsum('lrc,lc->lr', w, u)
    return jnp.einsum('lr,lr->l', image, lax.stop_gradient(_unit(image)))


def _unit(vectors: Float[Array, 'layers size']) -> Float[Array, 'layers size']:
    """Vectors of length 1; those of length 0 stay so."""
    norms = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / jnp.where(norms > 0, norms, 1)

"""Derivatives of a function along a direction v, of any order and without a gradient in x:

    (v . d/dx)^order f(x),

by finite differences, whose evaluations are one batch (Pang et al. 2020, arXiv:2007.03317), or
exactly by forward mode, nested `order` times. And the directions, for means over them.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from choices import choose
from sde_lib import Number, expand
from shapes import OneKey, PerImage, State

# Of a batch a batch, of numbers or of states; no member has a part in what another one gets.
Function = Callable[[State], Array]
# (f, x, v, orders) -> derivatives of these orders.
Derivatives = Callable[[Function, State, State, Sequence[int]], list[Array]]


def directional(f: Function, x: State, v: State, order: int, method: str = 'forward') -> Array:
    """(v . d/dx)^order f(x) of each member of a batch; order 0 is f.

    `method` is 'forward', which is exact, or 'finite'. Differences are as long as `v`: a short one
    loses digits, as |f| 1e-7 / |v|^order in float32, and a long one sees the derivatives above, see
    `finite`. Raises ArgumentError for an unknown method.
    """
    return choose(DERIVATIVES, method, 'method')(f, x, v, [order])[0]


def finite(
    f: Function, x: State, v: State, orders: Sequence[int], step: Number | PerImage = 1.0
) -> list[Array]:
    """Derivatives of these orders, from one batch of max(orders) + 1 evaluations at

        x + offset step v,    offsets as of `symmetric_offsets`.

    They are exact for polynomials of degree max(orders), and the highest, and those that are odd as
    it is or even as it is, for one degree more. Of other functions the relative error falls as the
    square of the length of a difference. `step` is one for all, or one for each member.
    """
    offsets = symmetric_offsets(max(orders) + 1)
    step = jnp.asarray(step, x.dtype)
    # The axis of points stands behind that of the batch: devices that share it keep their parts.
    # By vmap, what `f` has bound for each member, such as its time, is for all of its points.
    points = jnp.stack([x + expand(offset * step, x) * v for offset in offsets.tolist()], 1)
    values = jax.vmap(f, 1, 0)(points)
    found = []
    for order in orders:
        weights = difference_weights(offsets, order).tolist()
        # In Python, as products of matrices need not be float32.
        total = sum(w * value for w, value in zip(weights, values, strict=True) if w)
        found.append(total / expand(step**order, total))
    return found


def forward(f: Function, x: State, v: State, orders: Sequence[int]) -> list[Array]:
    """Exact derivatives of these orders, by forward mode nested max(orders) times.

    Every level computes what the one below does, and its derivative; a compiler finds what is alike
    in them. docs/objectives.md has what that costs.
    """

    def up_to(order, x):
        """All derivatives along v, from order 0 on."""
        if order == 0:
            return [f(x)]
        below, slopes = jax.jvp(lambda x: up_to(order - 1, x), (x,), (v,))
        return [*below, slopes[-1]]

    found = up_to(max(orders), x)
    return [found[order] for order in orders]


def symmetric_offsets(num: int) -> Float[np.ndarray, 'num']:
    """(-1, 1), (-1, 0, 1), (-2, -1, 1, 2) and so on: 0 is one of them if their number is odd."""
    largest = num // 2
    return np.array([k for k in range(-largest, largest + 1) if k or num % 2], float)


def difference_weights(offsets: Float[np.ndarray, 'num'], order: int) -> Float[np.ndarray, 'num']:
    """Weights w with sum_k w_k f(x + offset_k v) = (v . d/dx)^order f(x) for polynomials f of
    degree below the number of offsets.

    The solution of the Vandermonde system sum_k w_k offset_k^j = order! if j = order, else 0 (Pang
    et al. 2020, theorem 1).
    """
    powers = np.vander(offsets, increasing=True).T
    weights = np.linalg.solve(powers, math.factorial(order) * np.eye(len(offsets))[order])
    return np.where(np.abs(weights) < 1e-12, 0.0, weights)


DERIVATIVES: dict[str, Derivatives] = {'finite': finite, 'forward': forward}


# Directions: [num, *shape]


def rademacher(key: OneKey, num: int, shape: tuple[int, ...]) -> Float[Array, 'num *shape']:
    """Signs, of covariance I."""
    return jax.random.rademacher(key, (num, *shape), jnp.float32)


def gaussian(key: OneKey, num: int, shape: tuple[int, ...]) -> Float[Array, 'num *shape']:
    """Draws from N(0, I)."""
    return jax.random.normal(key, (num, *shape))


def sphere(key: OneKey, num: int, shape: tuple[int, ...]) -> Float[Array, 'num *shape']:
    """Draws from the sphere of radius sqrt(dim), of covariance I."""
    drawn = gaussian(key, num, shape)
    squares = jnp.sum(drawn.reshape(num, -1) ** 2, axis=1)
    return drawn * expand(jnp.sqrt(math.prod(shape) / squares), drawn)


def basis(key: OneKey, num: int, shape: tuple[int, ...]) -> Float[Array, 'dim *shape']:
    """The unit vectors, one for each dimension, whatever the key and the number."""
    dim = math.prod(shape)
    return jnp.eye(dim).reshape(dim, *shape)

"""What a problem is: a differential equation on a box, a form of its solution that meets all
conditions exactly, what is left over of the equation, and the truth.

    points z [n, dim]  ->  x = wrap(z, u(z)) [n, outputs]  ->  residual(x, z) [n, equations] = 0

All functions are pointwise: row i of a result depends on row i of the points. So one forward-mode
derivative with the same direction at all points is a partial derivative at each.
"""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Points = Float[Array, 'points dim']
Values = Float[Array, 'points outputs']
# u(z) of a network, or x(z) of a solution.
Function = Callable[[Points], Values]

# The grid on which errors are measured is finer than that of training by this factor.
FINER = 4


@dataclasses.dataclass(frozen=True)
class Problem:
    """A differential equation, and all that a solver has to know of it.

    low, high   the corners of the domain
    wrap        `wrap(z, u)` is the solution x at points z where a network says u; it meets initial
                and boundary conditions for every u
    residual    `residual(x, z)` of a function x is 0 [points, equations] at a solution
    truth       `truth(z)` in float64, of numpy arrays
    outputs     numbers of u and of x at a point
    equations   numbers of the residual at a point
    jitter      standard deviation of the noise that training adds to points, in spacings of the
                grid along each axis; so points leave the domain by a little
    names       of the axes, for pictures
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    wrap: Callable[[Points, Values], Values]
    residual: Callable[[Function, Points], Values]
    truth: Callable[[np.ndarray], np.ndarray]
    outputs: int = 1
    equations: int = 1
    jitter: float = 1 / 3
    names: tuple[str, ...] = ('t',)

    @property
    def dim(self) -> int:
        """The number of axes."""
        return len(self.low)

    def solution(self, u: Function) -> Function:
        """The wrapped function: what a network stands for."""
        return lambda z: self.wrap(z, u(z))

    def spacing(self, shape: tuple[int, ...]) -> Float[np.ndarray, 'dim']:
        """Between neighbours of the grid with so many points along each axis."""
        return (np.array(self.high) - np.array(self.low)) / (np.array(shape) - 1)

    def grid(self, shape: tuple[int, ...]) -> Float[np.ndarray, 'points dim']:
        """Evenly spaced points, the ends of each axis included; the last axis runs fastest."""
        axes = map(np.linspace, self.low, self.high, shape)
        return np.array(list(itertools.product(*axes)))

    def finer_grid(self, shape: tuple[int, ...]) -> Float[np.ndarray, 'points dim']:
        """The centres of the cells of a grid that is FINER times as fine as that of `shape` along
        each axis: none of them is a point of that grid.
        """
        axes = []
        for low, high, num in zip(self.low, self.high, shape, strict=True):
            cells = FINER * (num - 1)
            axes.append(low + (high - low) * (np.arange(cells) + 0.5) / cells)
        return np.array(list(itertools.product(*axes)))


def derivatives(x: Function, z: Points, axis: int = 0, order: int = 1) -> tuple[Values, ...]:
    """x, dx/dz_axis, ..., up to a derivative of this order, at every point: nested forward mode."""
    if order == 0:
        return (x(z),)
    direction = jnp.zeros_like(z).at[:, axis].set(1)
    values, slopes = jax.jvp(lambda z: derivatives(x, z, axis, order - 1), (z,), (direction,))
    return (*values, slopes[-1])

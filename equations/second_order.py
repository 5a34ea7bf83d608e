"""Second-order methods on the residual of a fixed grid: what losses with Adam are to be compared
with. They are meant for float64, and for networks of up to a few thousand parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import lineax
import optimistix
from jaxtyping import Array, Int

from equations.training import Training
from shapes import OneKey

# A search ends where a step changes neither parameters nor residual by this share.
TOLERANCE = 1e-15


class Minimum(NamedTuple):
    """Where a search ended, and after how many steps."""

    params: Any
    steps: Int[Array, '']


def minimise(training: Training, key: OneKey, method: str, max_steps: int) -> Minimum:
    """The parameters of least squared residual on the grid of `training`, from random ones, by a
    method of METHODS. What else `training` says of steps, noise and rates has no part in it.
    """
    start = training.init(key).params
    points = jnp.asarray(training.problem.grid(training.shape), training.network.dtype)

    def residual(params, _):
        found = training.residual(params, points)
        return found / jnp.sqrt(found.size)

    return METHODS[method](residual, start, max_steps)


def levenberg_marquardt(residual: Callable, start: Any, max_steps: int) -> Minimum:
    """Each step solves the normal equations of damped linear least squares: its time grows with the
    cube of the number of parameters.
    """
    solver = optimistix.LevenbergMarquardt(
        TOLERANCE, TOLERANCE, linear_solver=lineax.Normal(lineax.Cholesky())
    )
    found = optimistix.least_squares(residual, solver, start, max_steps=max_steps, throw=False)
    return Minimum(found.value, found.stats['num_steps'])


def bfgs(residual: Callable, start: Any, max_steps: int) -> Minimum:
    """BFGS with a full matrix."""
    return _quasi_newton(optimistix.BFGS(TOLERANCE, TOLERANCE), residual, start, max_steps)


def lbfgs(residual: Callable, start: Any, max_steps: int) -> Minimum:
    """L-BFGS with a history of 50 steps."""
    solver = optimistix.LBFGS(TOLERANCE, TOLERANCE, history_length=50)
    return _quasi_newton(solver, residual, start, max_steps)


def _quasi_newton(solver: Any, residual: Callable, start: Any, max_steps: int) -> Minimum:
    def square(params, _):
        return jnp.square(residual(params, None)).sum()

    found = optimistix.minimise(square, solver, start, max_steps=max_steps, throw=False)
    return Minimum(found.value, found.stats['num_steps'])


METHODS = {'lm': levenberg_marquardt, 'bfgs': bfgs, 'lbfgs': lbfgs}

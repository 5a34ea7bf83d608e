"""Euler's and Heun's method of Karras et al. 2022 (algorithms 1 and 2), with churn, for any linear
SDE.

In y = x / alpha and the noise level r = sigma / alpha the probability flow is

    dy/dr = (y - E[x_0 | x]) / r = noise = -sigma score,

for every SDE the same, and nothing cancels in it. Algorithm 1 ends with a step to r = 0, which is
`denoise` of a sampler: with it, n steps take n + 1 evaluations by Euler's and 2 n + 1 by Heun's
method.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp

from choices import ArgumentError
from parameterization import Process
from sde_lib import SDE, at, expand
from shapes import Scalar, State
from solvers import grids
from solvers.grid_solver import GridSolver, Step

# Slope dy/dr of a state y at a time.
Slope = Callable[[State, Scalar], State]


@dataclasses.dataclass(frozen=True)
class _Churning(GridSolver):
    """A method that raises the noise level before each step (Karras et al. 2022, algorithm 2).

    `churn` is S_churn, which all levels share, the step to 0 included; `churn_min` and `churn_max`
    are S_tmin and S_tmax, between which levels are raised, and `noise_scale` is S_noise.
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    noise_scale: float = 1.0

    def __post_init__(self):
        if self.churn_max < self.churn_min:
            reason = f'{self.churn_max} is below churn_min, {self.churn_min}'
            raise ArgumentError('churn_max', reason)

    def step(self, process, draw, x, i, times, memory):
        sde, t, s = process.sde, times[i], times[i + 1]

        def slope(y, t):
            t = at(t, y)
            return sde.noise(t, process.score(expand(sde.alpha(t), y) * y, t))

        y = x / sde.alpha(t)
        if self.churn > 0:
            t, y = self._raise_level(process, draw(0), y, t, num_levels=times.shape[0])
        x = sde.alpha(s) * self._advance(slope, y, t, s, _level(sde, t), _level(sde, s))
        return Step(x, x), memory

    def _advance(
        self, slope: Slope, y: State, t: Scalar, s: Scalar, level_t: Scalar, level_s: Scalar
    ) -> State:
        raise TypeError(f'{type(self).__name__} does not define _advance')

    def _raise_level(
        self, process: Process, noise: State, y: State, t: Scalar, num_levels: int
    ) -> tuple[Scalar, State]:
        """Lines 4 to 6. No level is above that of T; of a chain they are those it has."""
        sde = process.sde
        level = _level(sde, t)
        within = (self.churn_min <= level) & (level <= self.churn_max)
        gamma = jnp.where(within, min(self.churn / num_levels, math.sqrt(2) - 1), 0.0)
        raised = sde.time_at_log_snr(-2 * jnp.log(level * (1 + gamma)))
        raised = grids.known(sde, jnp.clip(raised, t, sde.T))
        raised = jnp.where(within, raised, t)
        level_raised = jnp.maximum(_level(sde, raised), level)
        added = jnp.sqrt((level_raised - level) * (level_raised + level))
        return raised, y + self.noise_scale * added * noise


@dataclasses.dataclass(frozen=True)
class Euler(_Churning):
    """Euler's method, of order 1: without churn it is DDIM."""

    def _advance(self, slope, y, t, s, level_t, level_s):
        return y + (level_s - level_t) * slope(y, t)


@dataclasses.dataclass(frozen=True)
class Heun(_Churning):
    """Heun's method, of order 2 for two evaluations; sigma must not be 0 at the end."""

    evaluations: ClassVar[int] = 2

    def _advance(self, slope, y, t, s, level_t, level_s):
        slope_t = slope(y, t)
        y_euler = y + (level_s - level_t) * slope_t
        return y + (level_s - level_t) * 0.5 * (slope_t + slope(y_euler, s))


def _level(sde: SDE, t: Scalar) -> Scalar:
    """The noise level sigma / alpha."""
    return sde.sigma(t) / sde.alpha(t)


SOLVERS = {'euler': Euler, 'heun': Heun}

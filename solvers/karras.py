"""Euler's and Heun's method of Karras et al. 2022 (algorithms 1 and 2), with churn, for any linear
SDE.

In y = x / alpha and the noise level r = sigma / alpha the probability flow is

    dy/dr = (y - E[x_0 | x]) / r = noise = -sigma score,

for every SDE the same, and nothing cancels in it. Algorithm 1 ends with a step to r = 0, which is
`denoise` of `sampling.on_grid`: with it, n steps take n + 1 evaluations by Euler's and 2 n + 1 by
Heun's method.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from sde_lib import SDE, State, at, expand
from solvers import grids
from solvers.grid_solver import GridSolver, Step

# Slope dy/dr of a state y at a time, for the two methods.
Slope = Callable[[State, Array], State]


class Churn(NamedTuple):
    """Noise that raises the level before each step (Karras et al. 2022, algorithm 2).

    `total` is S_churn, which all levels share, the step to 0 included; `low` and `high` are S_tmin
    and S_tmax, between which levels are raised, and `noise_scale` is S_noise.
    """

    total: float
    low: float
    high: float
    noise_scale: float


def euler(
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    noise_scale: float = 1.0,
) -> GridSolver:
    """Euler's method, of order 1: without churn it is DDIM."""
    return _solver(_euler_step, 1, Churn(churn, churn_min, churn_max, noise_scale))


def heun(
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    noise_scale: float = 1.0,
) -> GridSolver:
    """Heun's method, of order 2 for two evaluations; sigma must not be 0 at the end."""
    return _solver(_heun_step, 2, Churn(churn, churn_min, churn_max, noise_scale))


def _solver(advance: Callable, evaluations: int, churn: Churn) -> GridSolver:
    def step(sde, score_fn, draw, x, i, times, memory):
        def slope(y, t):
            t = at(t, y)
            return sde.noise(t, score_fn(expand(sde.alpha(t), y) * y, t))

        t, s = times[i], times[i + 1]
        y = x / sde.alpha(t)
        if churn.total > 0:
            t, y = _raise_level(sde, churn, draw(0), y, t, num_levels=times.shape[0])
        x = sde.alpha(s) * advance(slope, y, t, s, _level(sde, t), _level(sde, s))
        return Step(x, x), memory

    return GridSolver(step, evaluations, stochastic=False)


def _euler_step(slope: Slope, y: State, t, s, level_t, level_s) -> State:
    return y + (level_s - level_t) * slope(y, t)


def _heun_step(slope: Slope, y: State, t, s, level_t, level_s) -> State:
    slope_t = slope(y, t)
    y_euler = y + (level_s - level_t) * slope_t
    return y + (level_s - level_t) * 0.5 * (slope_t + slope(y_euler, s))


def _raise_level(
    sde: SDE, churn: Churn, noise: State, y: State, t: Float[Array, ''], num_levels: int
) -> tuple[Float[Array, ''], State]:
    """Algorithm 2, lines 4 to 6. No level is above that of T; of a chain they are those it has."""
    level = _level(sde, t)
    within = (churn.low <= level) & (level <= churn.high)
    gamma = jnp.where(within, min(churn.total / num_levels, math.sqrt(2) - 1), 0.0)
    raised = sde.time_at_log_snr(-2 * jnp.log(level * (1 + gamma)))
    raised = grids.known(sde, jnp.clip(raised, t, sde.T))
    raised = jnp.where(within, raised, t)
    level_raised = jnp.maximum(_level(sde, raised), level)
    added = jnp.sqrt((level_raised - level) * (level_raised + level))
    return raised, y + churn.noise_scale * added * noise


def _level(sde: SDE, t: Float[Array, '']) -> Float[Array, '']:
    """The noise level sigma / alpha."""
    return sde.sigma(t) / sde.alpha(t)


SOLVERS = {'euler': euler, 'heun': heun}

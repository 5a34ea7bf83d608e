"""DPM-Solver++ (Lu et al. 2022b, arXiv:2211.01095): data prediction, single-step and multistep.

The coefficients are those of `exponential`.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from parameterization import ScoreFn
from sde_lib import SDE, State
from solvers import grids
from solvers.exponential import (
    Point,
    added_noise,
    advance,
    evaluate,
    half_log_snr,
    no_points,
    num_trusted,
)
from solvers.grid_solver import GridSolver, Step


def dpmpp_2s() -> GridSolver:
    """Single-step, order 2 for two evaluations (algorithm 1, r = 1/2); sigma must not be 0 at the
    end.
    """

    def step(sde, score_fn, draw, x, i, times, memory):
        t, s = times[i], times[i + 1]
        now = evaluate(sde, score_fn, x, t)
        x = advance(sde, x, t, s, [now, _midway(sde, score_fn, x, t, s, now)], 2)
        return Step(x, x), memory

    return GridSolver(step, 2, stochastic=False)


def dpmpp_2m() -> GridSolver:
    """Multistep, order 2 for one evaluation (algorithm 2). The first step is of order 1."""
    return dpmpp_2m_sde(eta=0.0)


def dpmpp_2m_sde(eta: float = 1.0) -> GridSolver:
    """The same for the reverse-time SDE with diffusion eta g (appendix D has eta = 1)."""

    def step(sde, score_fn, draw, x, i, times, memory):
        t, s = times[i], times[i + 1]
        now = evaluate(sde, score_fn, x, t)
        num = jnp.minimum(num_trusted(sde, i, times), 2)
        mean = advance(sde, x, t, s, [now, *memory], num, eta)
        x = mean + added_noise(sde, t, s, eta) * draw(0) if eta > 0 else mean
        return Step(x, mean), [now]

    return GridSolver(step, 1, stochastic=eta > 0, init=_remember(1))


def dpmpp_3m() -> GridSolver:
    """Multistep, order 3 for one evaluation; sigma must not be 0 after the first step.

    A first step of order 1 would leave the whole of order 2: it is that of 2S instead, for one
    evaluation more, and the second has both its points. The published code halves the second
    difference, for an order of 2.
    """

    def step(sde, score_fn, draw, x, i, times, memory):
        t, s = times[i], times[i + 1]
        now = evaluate(sde, score_fn, x, t)

        def start():
            return [_midway(sde, score_fn, x, t, s, now), memory[1]]

        memory = lax.cond(i == 0, start, lambda: memory)
        num = jnp.where(i == 0, 2, jnp.where(num_trusted(sde, i, times) == 1, 1, 3))
        x = advance(sde, x, t, s, [now, *memory], num)
        return Step(x, x), [now, memory[0]]

    return GridSolver(step, 1, stochastic=False, further=1, init=_remember(2))


def _remember(num: int):
    return lambda sde, score_fn, x, times: no_points(x, num)


def _midway(
    sde: SDE,
    score_fn: ScoreFn,
    x: State,
    t: Float[Array, ''],
    s: Float[Array, ''],
    now: Point,
) -> Point:
    """A point between t and s, found by a step of order 1; of a chain a level below that of t."""
    middle = sde.time_at_log_snr(half_log_snr(sde, t) + half_log_snr(sde, s))
    middle = grids.known_before(sde, middle, t)
    return evaluate(sde, score_fn, advance(sde, x, t, middle, [now], 1), middle)


SOLVERS = {
    'dpmpp_2s': dpmpp_2s,
    'dpmpp_2m': dpmpp_2m,
    'dpmpp_3m': dpmpp_3m,
    'dpmpp_2m_sde': dpmpp_2m_sde,
}

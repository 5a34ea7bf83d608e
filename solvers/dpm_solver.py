"""DPM-Solver++ (Lu et al. 2022b, arXiv:2211.01095): data prediction, single-step and multistep.

The coefficients are those of `exponential`.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jax import lax

from parameterization import Process
from shapes import Scalar, State
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


@dataclasses.dataclass(frozen=True)
class DPMpp2S(GridSolver):
    """Single-step, order 2 for two evaluations (algorithm 1, r = 1/2); sigma must not be 0 at the
    end.
    """

    evaluations: ClassVar[int] = 2

    def step(self, process, draw, x, i, times, memory):
        t, s = times[i], times[i + 1]
        now = evaluate(process, x, t)
        x = advance(process.sde, x, t, s, [now, _midway(process, x, t, s, now)], 2)
        return Step(x, x), memory


@dataclasses.dataclass(frozen=True)
class DPMpp2M(GridSolver):
    """Multistep, order 2 for one evaluation (algorithm 2). The first step is of order 1.

    For the reverse-time SDE with diffusion eta g (appendix D has eta = 1), or at eta = 0 the ODE.
    """

    eta: float = 0.0

    @property
    def stochastic(self) -> bool:
        """Whether steps add noise."""
        return self.eta > 0

    def init(self, process, x, times):
        return no_points(x, 1)

    def step(self, process, draw, x, i, times, memory):
        sde, t, s = process.sde, times[i], times[i + 1]
        now = evaluate(process, x, t)
        num = jnp.minimum(num_trusted(sde, i, times), 2)
        mean = advance(sde, x, t, s, [now, *memory], num, self.eta)
        x = mean + added_noise(sde, t, s, self.eta) * draw(0) if self.eta > 0 else mean
        return Step(x, mean), [now]


@dataclasses.dataclass(frozen=True)
class DPMpp2MSDE(DPMpp2M):
    """Multistep, order 2 for one evaluation, for the reverse-time SDE (appendix D)."""

    eta: float = 1.0


@dataclasses.dataclass(frozen=True)
class DPMpp3M(GridSolver):
    """Multistep, order 3 for one evaluation; sigma must not be 0 after the first step.

    A first step of order 1 would leave the whole of order 2: it is that of 2S instead, for one
    evaluation more, and the second has both its points. The published code halves the second
    difference, for an order of 2.
    """

    further: ClassVar[int] = 1

    def init(self, process, x, times):
        return no_points(x, 2)

    def step(self, process, draw, x, i, times, memory):
        sde, t, s = process.sde, times[i], times[i + 1]
        now = evaluate(process, x, t)

        def start():
            return [_midway(process, x, t, s, now), memory[1]]

        memory = lax.cond(i == 0, start, lambda: memory)
        num = jnp.where(i == 0, 2, jnp.where(num_trusted(sde, i, times) == 1, 1, 3))
        x = advance(sde, x, t, s, [now, *memory], num)
        return Step(x, x), [now, memory[0]]


def _midway(process: Process, x: State, t: Scalar, s: Scalar, now: Point) -> Point:
    """A point between t and s, found by a step of order 1; of a chain a level below that of t."""
    sde = process.sde
    middle = sde.time_at_log_snr(half_log_snr(sde, t) + half_log_snr(sde, s))
    middle = grids.known_before(sde, middle, t)
    return evaluate(process, advance(sde, x, t, middle, [now], 1), middle)


SOLVERS = {
    'dpmpp_2s': DPMpp2S,
    'dpmpp_2m': DPMpp2M,
    'dpmpp_3m': DPMpp3M,
    'dpmpp_2m_sde': DPMpp2MSDE,
}

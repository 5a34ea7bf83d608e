"""UniPC (Zhao et al. 2023, arXiv:2302.04867): a predictor, and a corrector that costs nothing.

UniPC-p predicts through p points. The evaluation at the predicted state, which the next step begins
with, is a further point, through which the step that led there is done again. In data prediction
with B(h) = exp(h) - 1; with more than two points B(h) cancels. The coefficients are those of
`exponential`.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from shapes import State
from solvers.exponential import Point, advance, evaluate, no_points, num_trusted
from solvers.grid_solver import GridSolver, Step


class Past(NamedTuple):
    """The corrected state at the time before, and points up to there, the latest first."""

    x: State
    points: list[Point]


@dataclasses.dataclass(frozen=True)
class UniPC(GridSolver):
    """One evaluation a step (algorithm 3); the last state is a predicted one, as published."""

    order: int

    def init(self, process, x, times):
        return Past(x, no_points(x, self.order))

    def step(self, process, draw, x, i, times, memory):
        sde = process.sde
        now = evaluate(process, x, times[i])

        def correct():
            latest, *older = memory.points
            num = jnp.minimum(num_trusted(sde, i - 1, times), self.order) + 1
            points = [latest, now, *older]
            return advance(sde, memory.x, times[i - 1], times[i], points, num)

        x = lax.cond(i > 0, correct, lambda: x)
        points = [now, *memory.points][: self.order]
        num = jnp.minimum(num_trusted(sde, i, times), self.order)
        predicted = advance(sde, x, times[i], times[i + 1], points, num)
        return Step(predicted, predicted), Past(x, points)


SOLVERS = {f'unipc_{order}': functools.partial(UniPC, order) for order in (2, 3)}

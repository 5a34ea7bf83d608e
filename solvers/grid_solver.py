"""Solvers on a time grid: one step, the memory that it carries, and its cost.

The loop over the grid, the keys and the counting are in sampling.py, once for all of them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from jax import lax
from jaxtyping import Array, Int

from parameterization import Process
from sde_lib import at
from shapes import Grid, PerImage, State
from solvers.sampler import Draw


class Step(NamedTuple):
    """A state after a step, and the same without the noise that the step ended with, if any."""

    x: State
    x_mean: State


@dataclasses.dataclass(frozen=True)
class GridSolver:
    """A solver that goes from time to time of a grid. Subclasses give `step`.

    `evaluations` of the network a step; `further` ones besides, before the first step or in it.
    `stochastic`: steps end with noise. `may_end_at_data`: it evaluates nothing at the last time,
    which so may be 0, where a score may diverge.
    """

    evaluations: ClassVar[int] = 1
    further: ClassVar[int] = 0
    stochastic: ClassVar[bool] = False
    may_end_at_data: ClassVar[bool] = False

    def init(self, process: Process, x: State, times: Grid) -> Any:
        """The memory at the start: any pytree."""
        return ()

    def step(
        self,
        process: Process,
        draw: Draw,
        x: State,
        i: int | Int[Array, ''],
        times: Grid,
        memory: Any,
    ) -> tuple[Step, Any]:
        """The state at times[i + 1] from that at times[i], and the memory after.

        `draw(j)`, j < evaluations, is fresh normal noise.
        """
        raise TypeError(f'{type(self).__name__} does not define step')


# (process, noise, x, t, s) -> Step, with t and s of shape [batch].
Predictor = Callable[[Process, State, State, PerImage, PerImage], Step]


@runtime_checkable
class Corrector(Protocol):
    """A step at time t, before the predictor goes on from t to s, for `evaluations` of the network
    and with as many fresh normal noises: the first as `noise`, the others in `more`."""

    evaluations: int

    def __call__(
        self, process: Process, noise: State, x: State, t: PerImage, s: PerImage, *more: State
    ) -> Step:
        """Another state at t."""


@dataclasses.dataclass(frozen=True)
class PredictorCorrector(GridSolver):
    """Corrector steps at each time, then a predictor step (Song et al. 2021, algorithm 1).

    A value of predictors.py and one of correctors.py, of which one may be None.
    """

    predictor: Predictor | None
    corrector: Corrector | None = None
    corrector_steps: int = 1

    may_end_at_data: ClassVar[bool] = True

    @property
    def stochastic(self) -> bool:
        """Whether a corrector or the predictor adds noise."""
        return self.corrector is not None or self.predictor.eta > 0

    @property
    def evaluations(self) -> int:
        """Those of all corrections, and one of the predictor."""
        return self._of_corrections + (self.predictor is not None)

    @property
    def _of_corrections(self) -> int:
        return 0 if self.corrector is None else self.corrector_steps * self.corrector.evaluations

    def step(self, process, draw, x, i, times, memory):
        t, s = at(times[i], x), at(times[i + 1], x)
        state = Step(x, x)

        def correct(j, state):
            num = self.corrector.evaluations
            noise, *more = (draw(num * j + i) for i in range(num))
            return self.corrector(process, noise, state.x, t, s, *more)

        if self.corrector is not None:
            # A loop, so that NCSN's 100 corrections are not 100 copies of the network.
            state = lax.fori_loop(0, self.corrector_steps, correct, state)
        if self.predictor is not None:
            state = self.predictor(process, draw(self._of_corrections), state.x, t, s)
        return state, memory

"""A solver on a time grid: one step, the memory that it carries, and its cost.

    step(sde, score_fn, draw, x, i, times, memory) -> (Step, memory)

takes the state from times[i] to times[i + 1]. `draw(j)`, j < evaluations, is fresh normal noise.
`memory` is any pytree, made by `init(sde, score_fn, x, times)` before the first step.
"""

from collections.abc import Callable
from typing import NamedTuple

from jax import lax

from sde_lib import State, at


class Step(NamedTuple):
    """A state after a step, and the same without the noise that the step ended with, if any."""

    x: State
    x_mean: State


class GridSolver(NamedTuple):
    """A step, its network evaluations, those besides (before the first step, or in it), and the
    memory at the start. `stochastic` says that steps end with noise.
    """

    step: Callable
    evaluations: int
    stochastic: bool
    further: int = 0
    init: Callable = lambda sde, score_fn, x, times: ()


def predictor_corrector(
    predictor: Callable | None,
    corrector: Callable | None = None,
    corrector_steps: int = 1,
    stochastic: bool = True,
) -> GridSolver:
    """Corrector steps at each time, then a predictor step (Song et al. 2021, algorithm 1).

    `predictor(sde, score_fn, noise, x, t, s)` and `corrector` likewise; one of them may be None.
    """
    corrections = corrector_steps if corrector is not None else 0

    def step(sde, score_fn, draw, x, i, times, memory):
        t, s = at(times[i], x), at(times[i + 1], x)

        def correct(j, state):
            return corrector(sde, score_fn, draw(j), state.x, t, s)

        # A loop, so that NCSN's 100 corrections are not 100 copies of the network.
        state = lax.fori_loop(0, corrections, correct, Step(x, x)) if corrections else Step(x, x)
        if predictor is not None:
            state = predictor(sde, score_fn, draw(corrections), state.x, t, s)
        return state, memory

    return GridSolver(step, corrections + (predictor is not None), stochastic)

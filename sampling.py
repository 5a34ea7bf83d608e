"""From noise to samples: solving the reverse-time SDE or its probability-flow ODE from T to t_min.

    sampler(image_keys, process, shape) -> Samples(x, nfe, ending, ...)

draws one image of `shape` for each key, in one program. An image depends on its own key only: it
is the same alone, in any batch, and on any devices. Samplers are frozen values: variants are made
by `dataclasses.replace`, and the text of one says all that it depends on. What they have in common
is in solvers/sampler.py; here are those by solvers on a grid and by the ODE, and all of them by
name.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from choices import ArgumentError, choose
from solvers import correctors, dpm_solver, karras, latents, predictors, unipc
from solvers.adaptive import AdaptiveSDE
from solvers.grid_solver import GridSolver, Predictor, PredictorCorrector, Step
from solvers.grids import TimeGrid
from solvers.ode import ODESolver
from solvers.picard import Picard
from solvers.reverse_sde import ReverseSDE
from solvers.sampler import Problem, Sampler, Solution, counted


@dataclasses.dataclass(frozen=True)
class GridSampler(Sampler):
    """Samples by a solver that goes from time to time of the grid."""

    solver: GridSolver

    @property
    def may_end_at_data(self) -> bool:
        """As the solver may."""
        return self.solver.may_end_at_data

    def solve(self, problem: Problem) -> Solution:
        """One scan over the grid."""
        process, x, times, solver = problem.process, problem.x, problem.times, self.solver

        def advance(carry, i):
            state, memory = carry

            def draw_here(j):
                return problem.draw(1 + i * solver.evaluations + j)

            state, memory = solver.step(process, draw_here, state.x, i, times, memory)
            return (state, memory), state.x if self.trajectory else None

        num_steps = times.shape[0] - 1
        carry = Step(x, x), solver.init(process, x, times)
        (state, _), states = lax.scan(advance, carry, jnp.arange(num_steps))
        return Solution(
            state.x,
            counted(x, num_steps * solver.evaluations + solver.further),
            state.x_mean if solver.stochastic else None,
            jnp.concatenate([x[None], states]) if self.trajectory else None,
        )


@dataclasses.dataclass(frozen=True)
class ProbabilityFlow(Sampler):
    """Samples by the probability-flow ODE (Song et al. 2021, eq. 13): the images at t_min whose
    latent codes are a draw from the prior.

    The solver chooses its steps, unless not `adaptive`: then they are those of the grid. Raises
    ArgumentError for a solver that cannot choose them.
    """

    solver: ODESolver = ODESolver()
    adaptive: bool = True

    def __post_init__(self):
        if self.adaptive:
            self.solver.check_adaptive()

    def solve(self, problem: Problem) -> Solution:
        """One solve for each image."""
        x, nfe, ending = latents.decode(
            problem.process,
            problem.x,
            solver=self.solver,
            t_min=problem.t_min,
            t_start=problem.t_start,
            times=None if self.adaptive else problem.times,
            save=problem.times if self.trajectory else None,
        )
        if not self.trajectory:
            return Solution(x, nfe, ending=ending)
        states = jnp.moveaxis(x, 1, 0)
        return Solution(states[-1], nfe, trajectory=states, ending=ending)


def create(name: str, **fields: Any) -> Sampler:
    """The sampler of METHODS with that name, as `create('heun', steps=18, spacing='karras')`.

    The fields of its solver and of its grid are given along with its own. Raises ArgumentError for
    a name that does not exist and for what a method cannot do, TypeError for unknown fields.
    """
    return choose(METHODS, name, 'method')(**fields)


def _taken(fields: dict[str, Any], cls: type) -> dict[str, Any]:
    """The fields of a dataclass, taken out of `fields`."""
    names = [field.name for field in dataclasses.fields(cls)]
    return {name: fields.pop(name) for name in names if name in fields}


def _on_grid(create_solver: Callable[..., GridSolver], **fields: Any) -> GridSampler:
    grid, own = TimeGrid(**_taken(fields, TimeGrid)), _taken(fields, GridSampler)
    sampler = GridSampler(create_solver(**fields), grid=grid, **own)
    if fields.get('corrector') == 'mala' and sampler.temperature != 1:
        reason = f"{sampler.temperature}; the corrector 'mala' has the law of p_t, at 1"
        raise ArgumentError('temperature', reason)
    return sampler


def _predictor_corrector(
    predictor: str = 'euler_maruyama',
    eta: float | None = None,
    corrector: str = 'none',
    corrector_steps: int = 1,
    **of_corrector: Any,
) -> PredictorCorrector:
    create_corrector = choose(correctors.CORRECTORS, corrector, 'corrector')
    solver = PredictorCorrector(
        _predictor(predictor, eta), create_corrector(**of_corrector), corrector_steps
    )
    if not solver.evaluations:
        raise ArgumentError('predictor', "'none', and so is the corrector; one of them is needed")
    return solver


def _predictor(name: str, eta: float | None) -> Predictor | None:
    """The predictor of that name, with its own `eta` unless one is given."""
    create_predictor = choose(predictors.PREDICTORS, name, 'predictor')
    if create_predictor is None:
        if eta is not None:
            raise ArgumentError('eta', f"{eta}, and the predictor, which has it, is 'none'")
        return None
    return create_predictor() if eta is None else create_predictor(eta)


def _picard(
    predictor: str = 'euler_maruyama',
    eta: float | None = None,
    corrector: str = 'none',
    **fields: Any,
) -> Picard:
    if corrector != 'none':
        raise ArgumentError('corrector', f"{corrector!r}; of picard 'none' needed")
    if predictor == 'none':
        raise ArgumentError('predictor', "'none'; picard needs one")
    grid = TimeGrid(**_taken(fields, TimeGrid))
    return Picard(_predictor(predictor, eta), grid=grid, **fields)


def _probability_flow(**fields: Any) -> ProbabilityFlow:
    grid, solver = TimeGrid(**_taken(fields, TimeGrid)), ODESolver(**_taken(fields, ODESolver))
    return ProbabilityFlow(solver, grid=grid, **fields)


def _reverse_sde(**fields: Any) -> ReverseSDE:
    return ReverseSDE(grid=TimeGrid(**_taken(fields, TimeGrid)), **fields)


def _adaptive_sde(**fields: Any) -> AdaptiveSDE:
    return AdaptiveSDE(grid=TimeGrid(**_taken(fields, TimeGrid)), **fields)


FEW_STEPS = {**karras.SOLVERS, **dpm_solver.SOLVERS, **unipc.SOLVERS}
METHODS: dict[str, Callable[..., Sampler]] = {
    'pc': functools.partial(_on_grid, _predictor_corrector),
    'picard': _picard,
    'ode': _probability_flow,
    'sde': _reverse_sde,
    'adaptive_sde': _adaptive_sde,
    **{name: functools.partial(_on_grid, solver) for name, solver in FEW_STEPS.items()},
}

"""The probability-flow ODE of a batch of images, by any solver of diffrax, adaptive or on a grid.

Every image has its own error estimate and step size: its solution does not depend on its
neighbours. The batch is done when its slowest member is. `per_image=False` is the published rule:
one error norm and one step size for the whole batch.

The solver's variable is the clock of the SDE: of a linear one the log signal-to-noise ratio lambda,
with dt/dlambda = -sigma^2 / g^2. Most of a log-likelihood is gained at times below 1e-3, over which
steps in t jump unnoticed.

Implicit solvers find each stage by a fixed number of simplified Newton iterations, so that their
evaluations can be counted and no image waits for another's root. They hold a dense Jacobian of
dim^2 numbers an image, made from dim directional derivatives: they are for up to a few hundred
dimensions.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Float

from choices import ArgumentError, choose
from parameterization import Process
from sde_lib import SDE, Number
from shapes import Counts, Grid
from solvers import endings, quadratures
from solvers.endings import Ending

MAX_STEPS = 10_000
# An adaptive solver's first step, in log signal-to-noise ratio. One guessed from derivatives is so
# short at the data's end that the next steps only grow.
FIRST_STEP = 1.0
# The share that a step is of the longest whose error is expected to be accepted. A rejected step
# costs as much as another, and a network's error is not smooth enough for diffrax's 0.9.
SAFETY = 0.8


class Method(NamedTuple):
    """A solver of diffrax, its evaluations a step, and those besides in the first step.

    `adaptive`: it estimates its error. `iterations` are those of the root finder of implicit ones.
    `telling` is the same solver for a velocity of `quadratures.branching`, if it has one.
    """

    solver: Callable
    per_step: int
    first: int = 0
    adaptive: bool = True
    iterations: int = 0
    telling: Callable | None = None


class Solved(NamedTuple):
    """Of a batch y, or several of it on a second axis, evaluations, and how its solves ended."""

    y: Any
    nfe: Counts
    ending: Ending


class SimplifiedNewton(diffrax.VeryChord):
    """A fixed number of simplified Newton iterations, after which the last correction has to be
    below `accept` tolerances, or else the step is rejected.
    """

    iterations: int = 2
    accept: float = 0.1

    def terminate(self, fn, y, args, options, state, tags):
        results = optimistix.RESULTS
        done = state.step >= self.iterations
        # What remains is smaller than the last correction by another contraction.
        has_failed = done & ~(state.diffsize < self.accept)
        return done, results.where(has_failed, results.nonlinear_divergence, results.successful)


def _implicit(solver: Callable, stages: int, iterations: int) -> Method:
    """A Kvaerno method, whose first stage is the last of the step before.

    diffrax evaluates with derivatives twice a step: for the Jacobian, and for one that it starts
    from and drops; the first step finds its first stage like the others.
    """
    return Method(solver, (stages - 1) * iterations + 2, iterations, iterations=iterations)


def velocity(process: Process) -> Callable:
    """The velocity of the probability-flow ODE for one image, as `ODESolver.solve` asks for it."""

    def of_one(t, x, args):
        score = process.score(x[None], t[None])
        return process.sde.probability_flow(x[None], t[None], score)[0]

    return of_one


@dataclasses.dataclass(frozen=True)
class ODESolver:
    """A solver of SOLVERS, its tolerances, and whose steps they choose.

    Each image has its own step sizes. Without `per_image` the batch has one error norm, over all of
    it, and one step size, as published: it takes fewer evaluations than the slowest member, whose
    errors are averaged away.

    Raises ArgumentError for a solver that does not exist, and for an implicit one of a whole batch.
    """

    solver: str = 'tsit5'
    rtol: float = 1e-5
    atol: float = 1e-5
    per_image: bool = True

    def __post_init__(self):
        method = choose(SOLVERS, self.solver, 'solver')
        if method.iterations and not self.per_image:
            reason = f'{self.solver!r} is implicit, and solves image by image only'
            raise ArgumentError('solver', reason)

    def check_adaptive(self) -> None:
        """Raises ArgumentError for a solver that cannot choose its own steps."""
        if not SOLVERS[self.solver].adaptive:
            reason = f'{self.solver!r} estimates no error and needs a grid of times'
            raise ArgumentError('solver', reason)

    def solve(
        self,
        velocity: Callable,
        y0: Any,
        args: Any,
        t0: Number,
        t1: Number,
        *,
        sde: SDE,
        light: Callable | None = None,
        times: Grid | None = None,
        save: Float[Array, 'saved'] | None = None,
    ) -> Solved:
        """Solves dy/dt = velocity(t, y, args) from t0 to t1 for each member of a batch of pytrees.

        `velocity` sees one member: a scalar t, and y and args without the batch axis. Steps are as
        the tolerances ask for, or, given `times` from t0 to t1, those. Returns y(t1), or y at the
        times `save` on a second axis, and each member's number of evaluations, rejected steps
        included. An evaluation may come with directional derivatives. A member that needs over
        MAX_STEPS steps of its own, or that no step leads further, is not done: see endings.py.

        `light` is a cheaper velocity for a y with quadratures, on which no velocity depends: it may
        leave theirs out. It stands in at stages that give them no weight: see quadratures.py.
        """
        on_grid = times is not None
        if not on_grid:
            self.check_adaptive()
        ends = jnp.array([t0, t1])
        convert = functools.partial(_in_clock, sde=sde, ends=ends, batched=not self.per_image)
        field, method = convert(velocity), SOLVERS[self.solver]
        if light is not None and method.telling:
            method = method._replace(solver=method.telling)
            field = quadratures.branching(field, convert(light))

        def solve_with(norm, y, args):
            clocks = sde.clock(ends if times is None else times)
            first_step, controller = _steps(clocks, on_grid, self.rtol, self.atol, norm)
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(field),
                _create(method, self.rtol, self.atol, on_grid),
                clocks[0],
                clocks[-1],
                first_step,
                y,
                args,
                saveat=_save_at(sde, save, clocks),
                stepsize_controller=controller,
                adjoint=diffrax.ForwardMode(),
                max_steps=max(MAX_STEPS, len(clocks)),
                throw=False,
            )
            # The last state is that of the end, after those that are asked for.
            end = 0 if save is None else slice(None, -1)
            ys = jax.tree.map(lambda ys: ys[end], solution.ys)
            ending = endings.in_time(endings.of_diffrax(solution), sde, t0, t1)
            return Solved(ys, method.per_step * ending.steps + method.first, ending)

        if self.per_image:
            return jax.vmap(functools.partial(solve_with, _largest_rms))(y0, args)
        ys, *rest = solve_with(optimistix.rms_norm, y0, args)
        num = len(jax.tree.leaves(y0)[0])
        nfe, ending = jax.tree.map(lambda of_all: jnp.full(num, of_all), rest)
        return Solved(ys if save is None else _swap_leading(ys), nfe, ending)


def _in_clock(velocity: Callable, sde: SDE, ends: Float[Array, '2'], batched: bool) -> Callable:
    """dy/dclock of a velocity dy/dt, at times between these two; of one member, or of a batch."""

    def velocity_in_clock(clock, y, args):
        t = jnp.clip(sde.time_at_clock(clock), ends.min(), ends.max())
        rate = sde.time_per_clock(t)
        return jax.tree.map(lambda v: rate * v, velocity(t, y, args))

    return jax.vmap(velocity_in_clock, (None, 0, 0)) if batched else velocity_in_clock


def _largest_rms(y: Any) -> Float[Array, '']:
    """The largest root mean square of a leaf: a log-density is not averaged away among pixels."""
    return jnp.stack([optimistix.rms_norm(leaf) for leaf in jax.tree.leaves(y)]).max()


def _create(method: Method, rtol: float, atol: float, on_grid: bool) -> diffrax.AbstractSolver:
    if not method.iterations:
        return method.solver()
    # On a grid there is no smaller step to go on with.
    accept = math.inf if on_grid else 0.1
    root_finder = SimplifiedNewton(rtol, atol, iterations=method.iterations, accept=accept)
    return method.solver(root_finder=root_finder)


def _steps(clocks: Grid, on_grid: bool, rtol: float, atol: float, norm: Callable) -> tuple:
    """The first step, and the controller of the others."""
    if on_grid:
        return None, diffrax.StepTo(clocks)
    first_step = FIRST_STEP * jnp.sign(clocks[-1] - clocks[0])
    return first_step, _Controller(rtol=rtol, atol=atol, norm=norm, safety=SAFETY)


class _Controller(endings.Halting, diffrax.PIDController):
    """Step sizes as the error asks for."""


def _save_at(sde: SDE, save: Float[Array, 'saved'] | None, clocks: Grid) -> diffrax.SaveAt:
    if save is None:
        return diffrax.SaveAt(t1=True)
    low, high = jnp.minimum(clocks[0], clocks[-1]), jnp.maximum(clocks[0], clocks[-1])
    return diffrax.SaveAt(ts=jnp.clip(sde.clock(save), low, high), t1=True)


def _swap_leading(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), tree)


# Where the last stage of a step is the first of the next, it is not evaluated twice. Not here:
# diffrax's implicit-explicit solvers, which need a velocity that is split in two, and its leapfrog,
# which is unstable where solutions contract.
SOLVERS = {
    'euler': Method(diffrax.Euler, 1, adaptive=False),
    'heun': Method(diffrax.Heun, 2),
    'midpoint': Method(diffrax.Midpoint, 2),
    'ralston': Method(diffrax.Ralston, 2),
    'reversible_heun': Method(diffrax.ReversibleHeun, 1, 1),
    'bosh3': Method(diffrax.Bosh3, 3, 1),
    'tsit5': Method(diffrax.Tsit5, 6, 1),
    'dopri5': Method(diffrax.Dopri5, 6, 1, telling=quadratures.Dopri5),
    'dopri8': Method(diffrax.Dopri8, 13, 1),
    # One evaluation for the error estimate, one with derivatives for the Jacobian.
    'implicit_euler': Method(diffrax.ImplicitEuler, 4, iterations=2),
    'kvaerno3': _implicit(diffrax.Kvaerno3, stages=4, iterations=2),
    'kvaerno4': _implicit(diffrax.Kvaerno4, stages=5, iterations=3),
    'kvaerno5': _implicit(diffrax.Kvaerno5, stages=7, iterations=3),
}

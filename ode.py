"""The probability-flow ODE of a batch of images, each with its own step sizes, by diffrax.

Every image has its own error estimate and step size: its solution does not depend on its
neighbours. The batch is done when its slowest member is. The published rule, one step size for the
whole batch, is an option.

The solver's variable is the log signal-to-noise ratio lambda, with dt/dlambda = -sigma^2 / g^2:
most of a log-likelihood is gained at times below 1e-3, over which steps in t jump unnoticed.
"""

import functools
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from choices import choose
from parameterization import ScoreFn
from sde_lib import SDE

# Solvers with an embedded error estimate, their evaluations a step, and those before the first
# step: where the last stage of a step is the first of the next, it is not evaluated twice.
SOLVERS = {
    'heun': (diffrax.Heun, 2, 0),
    'bosh3': (diffrax.Bosh3, 3, 1),
    'tsit5': (diffrax.Tsit5, 6, 1),
    'dopri5': (diffrax.Dopri5, 6, 1),
    'dopri8': (diffrax.Dopri8, 13, 1),
}
MAX_STEPS = 10_000


def velocity(sde: SDE, score_fn: ScoreFn) -> Callable:
    """The velocity of the probability-flow ODE for one image, as `solve` asks for it."""
    return lambda t, x, args: sde.probability_flow(x[None], t[None], score_fn(x[None], t[None]))[0]


def solve(
    velocity: Callable,
    y0: Any,
    args: Any,
    t0: float,
    t1: float,
    *,
    sde: SDE,
    solver: str,
    rtol: float,
    atol: float,
    per_image: bool = True,
) -> tuple[Any, Int[Array, 'batch']]:
    """Solves dy/dt = velocity(t, y, args) from t0 to t1 for each member of a batch of pytrees.

    `velocity` sees one member: a scalar t, and y and args without the batch axis. Returns y(t1) and
    each member's number of evaluations, rejected steps included. Raises when a member needs over
    MAX_STEPS steps.

    Without `per_image` the batch has one error norm, over all of it, and one step size, as
    published: it takes fewer evaluations than the slowest member, whose errors are averaged away.
    """
    method, per_step, first = choose(SOLVERS, solver, 'solver')
    log_snr_0, log_snr_1 = sde.log_snr(jnp.array([t0, t1]))

    def velocity_in_log_snr(log_snr, y, args):
        t = jnp.clip(sde.time_at_log_snr(log_snr), min(t0, t1), max(t0, t1))
        rate = -((sde.sigma(t) / sde.diffusion(t)) ** 2)
        return jax.tree.map(lambda v: rate * v, velocity(t, y, args))

    def solve_with(field, y, args):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            method(),
            log_snr_0,
            log_snr_1,
            None,
            y,
            args,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            adjoint=diffrax.ForwardMode(),
            max_steps=MAX_STEPS,
        )
        y1 = jax.tree.map(lambda ys: ys[0], solution.ys)
        return y1, per_step * solution.stats['num_steps'] + first

    if per_image:
        return jax.vmap(functools.partial(solve_with, velocity_in_log_snr))(y0, args)
    y1, nfe = solve_with(jax.vmap(velocity_in_log_snr, (None, 0, 0)), y0, args)
    return y1, jnp.full(len(jax.tree.leaves(y0)[0]), nfe)

"""The reverse-time SDE by diffrax's solvers for SDEs with additive noise.

In y = x / alpha and the log signal-to-noise ratio lambda, which rises as noise is taken away, every
linear SDE is the same: with s = sigma / alpha = exp(-lambda / 2),

    dy = (1 + eta^2) / 2 sigma s score(x, t) dlambda + eta s dw,

a pull towards E[x_0 | x] at the constant rate (1 + eta^2) / 2, and noise that does not depend on y:
what solvers of strong order 1.5 ask for. Each image's Brownian path is a function of its own key,
so rejected steps do not bend its law, and finer steps see the same path.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, Float

from choices import ArgumentError, choose
from sde_lib import expand
from shapes import OneKey, Scalar
from solvers import endings
from solvers.endings import Ending
from solvers.sampler import Problem, Sampler, Solution

MAX_STEPS = 10_000
# Resolution of the Brownian paths, in parts of the range of lambda (about 20): finer than any step
# that is taken in float32.
PATH_RESOLUTION = 2.0**-18
FIRST_STEP = 0.01  # in the same parts


class Method(NamedTuple):
    """A solver of diffrax, its evaluations a step, and whether it estimates its error."""

    solver: Callable
    per_step: int
    adaptive: bool = True


@dataclasses.dataclass(frozen=True)
class ReverseSDE(Sampler):
    """Samples of the reverse SDE with diffusion eta g, each image with its own steps: as `rtol` and
    `atol` ask for or, if not `adaptive`, those of the grid.

    For a trajectory adaptive steps end at the times of the grid too. An image that needs over
    MAX_STEPS of them, or that none leads further, is not done. Raises ArgumentError for a solver
    that does not exist or that cannot choose its steps.
    """

    solver: str = 'shark'
    rtol: float = 0.02
    atol: float = 0.0078
    eta: float = 1.0
    adaptive: bool = True

    def __post_init__(self):
        method = choose(SOLVERS, self.solver, 'solver')
        if self.adaptive and not method.adaptive:
            reason = f'{self.solver!r} estimates no error and needs a grid of times'
            raise ArgumentError('solver', reason)

    def solve(self, problem: Problem) -> Solution:
        """One solve for each image, along its own Brownian path."""
        sde, x, times = problem.process.sde, problem.x, problem.times
        ends = jnp.array([problem.t_start, problem.t_min])
        log_snrs, stops = sde.log_snr(ends if self.adaptive else times), None
        if self.trajectory:
            stops = jnp.clip(sde.log_snr(times), log_snrs[0], log_snrs[-1])
        drift, noise = self._drift_and_noise(problem)

        def solve(key, y):
            key = jax.random.fold_in(key, 1)
            path = brownian_path(key, y.shape, log_snrs[0], log_snrs[-1])
            return self._solve(drift, noise, path, y, log_snrs, stops)

        start, end = (jnp.float32(t) for t in (problem.t_start, problem.t_min))
        y, nfe, ending = jax.vmap(solve)(problem.image_keys, x / sde.alpha(start))
        ending = endings.in_time(ending, sde, start, end)
        states = None
        if self.trajectory:
            states = jnp.moveaxis(y[:, :-1], 1, 0)
            states = states * expand(sde.alpha(times), states)
        return Solution(sde.alpha(end) * y[:, -1], nfe, trajectory=states, ending=ending)

    def _solve(
        self,
        drift: Callable,
        noise: Callable,
        path: diffrax.AbstractPath,
        y: Float[Array, '*shape'],
        log_snrs: Float[Array, 'ends'],
        stops: Float[Array, 'stops'] | None,
    ) -> tuple[Float[Array, 'saved *shape'], Array, Ending]:
        """The states of one image at the stops and at the end, its evaluations, and how it ended,
        with the log signal-to-noise ratio in the place of the time.
        """
        method = SOLVERS[self.solver]
        controller = diffrax.StepTo(log_snrs)
        first_step = None
        if self.adaptive:
            controller = _controller(self.rtol, self.atol, stops)
            first_step = FIRST_STEP * (log_snrs[-1] - log_snrs[0])
        solution = diffrax.diffeqsolve(
            diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(noise, path)),
            method.solver(),
            log_snrs[0],
            log_snrs[-1],
            first_step,
            y,
            stepsize_controller=controller,
            saveat=diffrax.SaveAt(t1=True, ts=stops),
            adjoint=diffrax.ForwardMode(),
            max_steps=max(MAX_STEPS, len(log_snrs)),
            throw=False,
        )
        ending = endings.of_diffrax(solution)
        return solution.ys, method.per_step * ending.steps, ending

    def _drift_and_noise(self, problem: Problem) -> tuple[Callable, Callable]:
        """The two terms of dy, as the docstring of this module has them, of one image."""
        process, sde = problem.process, problem.process.sde

        def time(log_snr):
            return jnp.clip(sde.time_at_log_snr(log_snr), problem.t_min, problem.t_start)

        def drift(log_snr, y, args):
            t = time(log_snr)
            alpha, sigma = sde.alpha(t), sde.sigma(t)
            score = process.score(alpha * y[None], t[None])[0]
            return 0.5 * (1 + self.eta**2) * sigma**2 / alpha * score

        def noise(log_snr, y, args):
            t = time(log_snr)
            scale = self.temperature * self.eta * sde.sigma(t) / sde.alpha(t)
            return lineax.DiagonalLinearOperator(jnp.full(y.shape, scale))

        return drift, noise


def brownian_path(
    key: OneKey, shape: tuple[int, ...], start: Scalar, end: Scalar
) -> diffrax.VirtualBrownianTree:
    """The Brownian path of an image, for increments between any two points of [start, end]."""
    return diffrax.VirtualBrownianTree(
        start,
        end,
        tol=PATH_RESOLUTION * (end - start),
        shape=shape,
        key=key,
        levy_area=diffrax.SpaceTimeLevyArea,
    )


class _RoundedDown(diffrax.PIDController):
    """Step sizes rounded down to a quarter power of two.

    Brownian paths are rough: without this, the rounding of two programs would grow to the size of
    the tolerance.
    """

    def adapt_step_size(self, *args, **kwargs):
        keep, start, end, *rest = super().adapt_step_size(*args, **kwargs)
        size = jnp.exp2(jnp.floor(4 * jnp.log2(end - start)) / 4)
        return keep, start, start + size, *rest


class _Controller(endings.Halting, _RoundedDown):
    """And an end where they become too small."""


def _controller(
    rtol: float, atol: float, stops: Float[Array, 'saved'] | None
) -> diffrax.AbstractStepSizeController:
    # Söderlind's proportional-integral filter: errors of single steps are rough where noise is.
    controller = _Controller(rtol, atol, pcoeff=0.1, icoeff=0.3, dcoeff=0.0)
    return controller if stops is None else diffrax.ClipStepSizeController(controller, stops)


# Strong orders for additive noise: 1 of the first four and SEA, 1.5 of the rest. Not here: Milstein
# schemes, which are Euler's where noise is additive, and schemes for non-commutative noise.
SOLVERS = {
    'euler': Method(diffrax.Euler, 1, adaptive=False),
    'heun': Method(diffrax.Heun, 2),
    'midpoint': Method(diffrax.Midpoint, 2),
    'ralston': Method(diffrax.Ralston, 2),
    'sea': Method(diffrax.SEA, 1, adaptive=False),
    'sra1': Method(diffrax.SRA1, 2),
    'shark': Method(diffrax.ShARK, 2),
    'spark': Method(diffrax.SPaRK, 3),
}

"""Adaptive stepping of the reverse SDE (Jolicoeur-Martineau et al. 2021, arXiv:2105.14080).

A step of Euler-Maruyama, and one of stochastic Heun with the same noise, for two evaluations: their
difference is the error, the latter is kept. Each image has its own steps in t. Unlike the published
code, which draws noise anew after a rejection and so favours noise of small errors, an image has
one Brownian path, and a shorter step sees a part of the same noise.

A Brownian path is rough: times that differ in their last digit see another noise. So that an image
is the same in all batches, whose programs round differently, times are whole numbers of units, and
step sizes are rounded down to a quarter power of two.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from parameterization import Process
from sde_lib import expand
from shapes import Counts, Flags, PerImage, State
from solvers.endings import Ending
from solvers.sampler import Problem, Sampler, Solution

MAX_STEPS = 10_000
UNITS = 2**20  # of the range of times; also the resolution of the Brownian paths
FIRST_STEP = UNITS // 100  # as published
EVALUATIONS = 2


class Progress(NamedTuple):
    """The images, the Euler-Maruyama states of their last steps, the units of time that are left,
    those of the next step, whether the shortest one was too long, the steps that each image has
    tried, how often all have, and the states of the times that are asked for, if they are passed.
    """

    x: State
    previous: State
    left: Counts
    size: Counts
    is_stuck: Flags
    steps: Counts
    rounds: Int[Array, '']
    saved: Float[Array, 'saved batch *shape']


@dataclasses.dataclass(frozen=True)
class AdaptiveSDE(Sampler):
    """Samples of the reverse SDE with diffusion eta g (algorithm 1 with extrapolation).

    Published tolerances: `atol` is one of 256 values (0.0078 of images in [-1, 1]), and `rtol` 0.01
    to 0.5. `safety` is theta, `exponent` r of the next step's size theta h E^-r. For a trajectory
    steps end at the times of the grid too. An image that needs over MAX_STEPS steps, or that the
    shortest does not lead further, is not done.
    """

    rtol: float = 0.02
    atol: float = 0.0078
    eta: float = 1.0
    safety: float = 0.9
    exponent: float = 0.9

    def solve(self, problem: Problem) -> Solution:
        """One loop in which every image tries its next step."""
        x, start, t_min = problem.x, problem.t_start, problem.t_min
        unit = (start - t_min) / UNITS
        times = problem.times if self.trajectory else jnp.zeros(0)
        stops = jnp.clip(jnp.round((times - t_min) / unit), 0, UNITS).astype(jnp.int32)

        def increment(image_key, s, t):
            key = jax.random.fold_in(image_key, 1)
            path = diffrax.VirtualBrownianTree(t_min, start, tol=unit, shape=x.shape[1:], key=key)
            return self.temperature * path.evaluate(s, t)

        def step(x, left, size):
            t, s = (jnp.clip(t_min + unit * units, t_min, start) for units in (left, left - size))
            noise = jax.vmap(increment)(problem.image_keys, s, t)
            return _pair(problem.process, noise, x, t, s, self.eta)

        end = lax.while_loop(
            lambda now: jnp.any(_is_running(now)) & (now.rounds < MAX_STEPS),
            lambda now: self._attempt(now, stops, step),
            _start(x, len(stops)),
        )
        t_last = jnp.clip(t_min + unit * end.left, t_min, start)
        ending = Ending(end.left == 0, t_last, end.steps)
        saved = end.saved if self.trajectory else None
        return Solution(end.x, EVALUATIONS * end.steps, trajectory=saved, ending=ending)

    def _attempt(self, now: Progress, stops: Int[Array, 'saved'], step: Callable) -> Progress:
        """Every image that is not done tries its next step, which ends at a stop at the latest;
        `step(x, left, size)` is the pair.
        """
        is_running = _is_running(now)
        # Images that are done step somewhere, so that s < t for all of them.
        left = jnp.where(now.left > 0, now.left, UNITS)
        ahead = jnp.where(stops < left[:, None], stops, 0)
        size = jnp.minimum(now.size, left - jnp.max(ahead, axis=1, initial=0))
        euler, heun = step(now.x, left, size)
        error = self._error(euler, heun, now.previous)
        is_accepted = is_running & (error <= 1)

        def keep(new, old):
            return jnp.where(expand(is_accepted, new), new, old)

        # What is not a number counts as a large error.
        factor = self.safety * jnp.where(error >= 0, error, jnp.inf) ** -self.exponent
        x, left = keep(heun, now.x), keep(left - size, now.left)
        # There is nothing shorter than a unit, and tried again it would be rejected again.
        is_stuck = now.is_stuck | (is_running & ~is_accepted & (size == 1))
        is_there = expand(left == stops[:, None], now.saved)
        return Progress(
            x,
            keep(euler, now.previous),
            left,
            _round_down(factor * size),
            is_stuck,
            now.steps + is_running,
            now.rounds + 1,
            jnp.where(is_there, x, now.saved),
        )

    def _error(self, euler: State, heun: State, previous: State) -> PerImage:
        """Of each image the root mean square difference, in units of what is allowed: at most 1."""
        largest = jnp.maximum(jnp.abs(euler), jnp.abs(previous))
        ratios = (heun - euler) / jnp.maximum(self.atol, self.rtol * largest)
        return jnp.sqrt(jnp.mean(ratios.reshape(len(euler), -1) ** 2, axis=1))


def _is_running(now: Progress) -> Flags:
    return (now.left > 0) & ~now.is_stuck


def _start(x: State, num_stops: int) -> Progress:
    left = jnp.full(len(x), UNITS, jnp.int32)
    return Progress(
        x,
        previous=x,
        left=left,
        size=jnp.full_like(left, FIRST_STEP),
        is_stuck=jnp.zeros(len(x), bool),
        steps=jnp.zeros_like(left),
        rounds=jnp.int32(0),
        saved=jnp.broadcast_to(x, (num_stops, *x.shape)),
    )


def _pair(
    process: Process, noise: State, x: State, t: PerImage, s: PerImage, eta: float
) -> tuple[State, State]:
    """x at s by Euler-Maruyama and by stochastic Heun, with one Brownian increment `noise`."""
    sde = process.sde

    def increment(x, at):
        drift = sde.reverse_drift(x, at, process.score(x, at), eta)
        return eta * expand(sde.diffusion(at), x) * noise - expand(t - s, x) * drift

    first = increment(x, t)
    second = increment(x + first, s)
    return x + first, x + 0.5 * (first + second)


def _round_down(size: PerImage) -> Counts:
    """The quarter power of two below, to whole units."""
    rounded = jnp.exp2(jnp.floor(4 * jnp.log2(size)) / 4)
    return jnp.clip(jnp.round(rounded), 1, UNITS).astype(jnp.int32)

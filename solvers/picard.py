"""Parallel-in-time sampling by Picard iteration (ParaDiGMS: Shih et al. 2023, arXiv:2305.16317).

A sampler of N steps x_{i+1} = x_i + delta_i(x_i) needs N evaluations in a row. Here a window of
states is guessed, all increments in it are evaluated at once, and their sums are the next guess:

    x_{i+k}  <-  x_i + sum over j < k of delta_{i+j}(x_{i+j}).

States that have settled leave the window at its front. The first always has, so there are at most N
rounds, and the fixed point is the sequential sampler with the same noise: more evaluations, fewer
of them in a row. That pays where the device has room for a window of images at once.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from parameterization import Process
from sde_lib import SDE, at, expand
from shapes import Grid, OneKey, State, Time
from solvers.grid_solver import Predictor
from solvers.sampler import Problem, Sampler, Solution, noise_source


class Window(NamedTuple):
    """The step that the window of one image begins at, its states, the rounds so far, and, if they
    are asked for, the states of all steps.

    `states[0]` is settled, the others are guesses.
    """

    begin: Int[Array, '']
    states: Float[Array, 'states *shape']
    rounds: Int[Array, '']
    path: Float[Array, 'steps *shape'] | None


@dataclasses.dataclass(frozen=True)
class Picard(Sampler):
    """What `sampling.GridSampler` draws with this predictor, within `tolerance`, for the same keys.

    `window` steps are evaluated at once. A state has settled when its change, in root mean square
    over its dimensions, is at most `tolerance` times the noise of its step in ancestral sampling.
    Each image has its own window: `nfe` is the evaluations made for it, `rounds` those in a row.
    """

    predictor: Predictor
    window: int = 64
    tolerance: float = 0.1

    @property
    def may_end_at_data(self) -> bool:
        """A predictor evaluates nothing at its last time."""
        return True

    def solve(self, problem: Problem) -> Solution:
        """One loop of rounds for each image."""
        process, times = problem.process, problem.times
        solve = jax.vmap(lambda key, x: self._solve(process, key, x, times))
        x, rounds, path = solve(problem.image_keys, problem.x)
        return Solution(
            x,
            min(self.window, times.shape[0] - 1) * rounds,
            x - self._last_noise(problem) if self.predictor.eta > 0 else None,
            jnp.moveaxis(path[:, : times.shape[0]], 1, 0) if self.trajectory else None,
            rounds,
        )

    def _solve(
        self, process: Process, image_key: OneKey, x: Float[Array, '*shape'], times: Grid
    ) -> tuple[Float[Array, '*shape'], Int[Array, ''], Float[Array, 'steps *shape'] | None]:
        """The last state of one image, its rounds, and the states on the way if asked for."""
        num_steps = times.shape[0] - 1
        window = min(self.window, num_steps)
        draw = noise_source(image_key[None], x.shape, self.temperature)

        def improve(now: Window) -> Window:
            i = now.begin + jnp.arange(window, dtype=jnp.int32)
            inside = jnp.minimum(i, num_steps - 1)
            t, s = times[inside], times[inside + 1]
            noise = jax.vmap(lambda i: draw(1 + i)[0])(inside)
            states = now.states[:-1]
            increments = self.predictor(process, noise, states, t, s).x - states
            increments = jnp.where(expand(i < num_steps, increments), increments, 0.0)
            return _next_window(
                now, increments, self.tolerance * _noise_of_steps(process.sde, t, s)
            )

        # Windows reach beyond the last step.
        path = jnp.zeros((num_steps + window, *x.shape)) if self.trajectory else None
        states = jnp.broadcast_to(x, (window + 1, *x.shape))
        start = Window(jnp.int32(0), states, jnp.int32(0), path)
        end = lax.while_loop(lambda now: now.begin < num_steps, improve, start)
        return end.states[0], end.rounds, end.path

    def _last_noise(self, problem: Problem) -> State:
        """The noise that the last step ends with: in all predictors the same for any state."""
        noise = problem.draw(problem.times.shape[0] - 1)
        t, s = (at(time, noise) for time in problem.times[-2:])
        x = jnp.zeros_like(noise)
        process = problem.process.with_score(lambda x, t: jnp.zeros_like(x))
        step = self.predictor(process, noise, x, t, s)
        return step.x - step.x_mean


def _next_window(
    now: Window, increments: Float[Array, 'window *shape'], allowed: Float[Array, 'window']
) -> Window:
    """The window after a round, which begins where the first state has not settled."""
    states = now.states.at[1:].set(now.states[0] + jnp.cumsum(increments, axis=0))
    change = (states - now.states)[1:].reshape(len(increments), -1)
    has_settled = jnp.sqrt(jnp.mean(change**2, axis=1)) <= allowed
    settled = jnp.maximum(jnp.sum(jnp.cumprod(has_settled)), 1).astype(jnp.int32)
    # New states at the far end of the window start from the last guess.
    kept = jnp.minimum(jnp.arange(len(states)) + settled, len(increments))
    path = now.path
    if path is not None:
        path = lax.dynamic_update_slice_in_dim(path, states, now.begin, axis=0)
    return Window(now.begin + settled, states[kept], now.rounds + 1, path)


def _noise_of_steps(sde: SDE, t: Time, s: Time) -> Time:
    """Standard deviation of x_s given x_t and x_0."""
    _, sigma_ts = sde.transition(s, t)
    return sigma_ts * sde.sigma(s) / sde.sigma(t)

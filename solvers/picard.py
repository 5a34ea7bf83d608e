"""Parallel-in-time sampling by Picard iteration (ParaDiGMS: Shih et al. 2023, arXiv:2305.16317).

A sampler of N steps x_{i+1} = x_i + delta_i(x_i) needs N evaluations in a row. Here a window of
states is guessed, all increments in it are evaluated at once, and their sums are the next guess:

    x_{i+k}  <-  x_i + sum over j < k of delta_{i+j}(x_{i+j}).

States that have settled leave the window at its front. The first always has, so there are at most N
rounds, and the fixed point is the sequential sampler with the same noise: more evaluations, fewer
of them in a row. That pays where the device has room for a window of images at once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from parameterization import ScoreFn
from sde_lib import SDE, State, expand
from solvers import ends
from solvers.ends import Samples


class Window(NamedTuple):
    """The step that the window of one image begins at, its states, the rounds so far, and, if they
    are asked for, the states of all steps.

    `states[0]` is settled, the others are guesses.
    """

    begin: Int[Array, '']
    states: Float[Array, 'window *shape']
    rounds: Int[Array, '']
    path: Float[Array, 'steps *shape'] | None


def sample(
    image_keys: Key[Array, 'batch'],
    score_fn: ScoreFn,
    shape: tuple[int, ...],
    *,
    sde: SDE,
    times: Float[Array, 'times'],
    predictor: Callable,
    stochastic: bool,
    window: int,
    tolerance: float = 0.1,
    denoise: bool = True,
    temperature: float = 1.0,
    trajectory: bool = False,
) -> Samples:
    """What `sampling.on_grid` draws with this predictor, within `tolerance`, for the same keys.

    `window` steps are evaluated at once. A state has settled when its change, in root mean square
    over its dimensions, is at most `tolerance` times the noise of its step in ancestral sampling.
    Each image has its own window: `nfe` is the evaluations made for it, `rounds` those in a row.
    """
    num_steps = times.shape[0] - 1
    window = min(window, num_steps)

    def draw(image_key, i):
        return ends.noise_source(image_key[None], shape, temperature)(i)[0]

    def steps(image_key, states, i):
        noise = jax.vmap(lambda i: draw(image_key, 1 + i))(i)
        return predictor(sde, score_fn, noise, states, times[i], times[i + 1])

    def improve(image_key, now: Window) -> Window:
        i = now.begin + jnp.arange(window, dtype=jnp.int32)
        inside = jnp.minimum(i, num_steps - 1)
        increments = steps(image_key, now.states[:-1], inside).x - now.states[:-1]
        increments = jnp.where(expand(i < num_steps, increments), increments, 0.0)
        allowed = tolerance * _noise_of_steps(sde, times[inside], times[inside + 1])
        return _next_window(now, increments, allowed)

    def solve(image_key):
        x = sde.prior_std * draw(image_key, 0)
        # Windows reach beyond the last step.
        path = jnp.zeros((num_steps + window, *shape)) if trajectory else None
        states = jnp.broadcast_to(x, (window + 1, *shape))
        start = Window(jnp.int32(0), states, jnp.int32(0), path)
        end = lax.while_loop(
            lambda now: now.begin < num_steps, lambda now: improve(image_key, now), start
        )
        return end.states[0], end.rounds, end.path

    x, rounds, path = jax.vmap(solve)(image_keys)
    states = jnp.moveaxis(path[:, : num_steps + 1], 1, 0) if trajectory else None
    nfe = window * rounds
    if denoise and stochastic:
        x = x - _last_noise(image_keys, shape, sde, times, predictor, temperature)
    elif denoise:
        x, nfe, rounds = ends.denoise(sde, score_fn, x, times[-1]), nfe + 1, rounds + 1
    return Samples(x, nfe, states, rounds)


def _next_window(now: Window, increments: Array, allowed: Array) -> Window:
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


def _noise_of_steps(sde: SDE, t: Array, s: Array) -> Array:
    """Standard deviation of x_s given x_t and x_0."""
    _, sigma_ts = sde.transition(s, t)
    return sigma_ts * sde.sigma(s) / sde.sigma(t)


def _last_noise(image_keys, shape, sde, times, predictor, temperature) -> State:
    """The noise that the last step ends with: in all predictors the same for any state."""
    num_steps = times.shape[0] - 1
    noise = ends.noise_source(image_keys, shape, temperature)(num_steps)
    t, s = (jnp.full(len(image_keys), time) for time in times[-2:])
    x = jnp.zeros_like(noise)
    step = predictor(sde, lambda x, t: jnp.zeros_like(x), noise, x, t, s)
    return step.x - step.x_mean

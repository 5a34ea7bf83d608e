"""Solving the reverse-time SDE and its probability-flow ODE: from noise to samples.

A *step* takes a state from time t to an earlier time s and is a small pure function that gets its
noise as an argument. A *sampler* is one scan (or one diffrax solve) over steps, from the prior at T
down to t_min:

    sample(key, score_fn, shape) -> Samples(x, nfe)

Noise is drawn per image, from a key of its own: image i of a batch is the same whatever the batch.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

import keys
import ode
from parameterization import ScoreFn
from sde_lib import SDE, expand

State = Float[Array, 'batch *shape']


class Samples(NamedTuple):
    """Samples at t_min, and the number of network evaluations that each of them took."""

    x: State
    nfe: Int[Array, 'batch']


class Step(NamedTuple):
    """A state after a step, and the same without the noise that the step added."""

    x: State
    x_mean: State


# Time grids: n + 1 falling times from T to t_min.


def uniform_grid(sde: SDE, n: int, t_min: float) -> Float[Array, '{n+1}']:
    """Equal steps of time."""
    return jnp.linspace(sde.T, t_min, n + 1)


def log_snr_grid(sde: SDE, n: int, t_min: float) -> Float[Array, '{n+1}']:
    """Equal steps of the log signal-to-noise ratio (Lu et al. 2022)."""
    ends = sde.log_snr(jnp.array([sde.T, t_min]))
    return _pin_ends(sde.time_at_log_snr(jnp.linspace(*ends, n + 1)), sde, t_min)


def karras_grid(sde: SDE, n: int, t_min: float, rho: float = 7.0) -> Float[Array, '{n+1}']:
    """Equal steps of (sigma / alpha)^(1 / rho) (Karras et al. 2022, eq. 5)."""
    ends = jnp.exp(-0.5 / rho * sde.log_snr(jnp.array([sde.T, t_min])))
    log_snr = -2 * rho * jnp.log(jnp.linspace(*ends, n + 1))
    return _pin_ends(sde.time_at_log_snr(log_snr), sde, t_min)


def _pin_ends(times, sde, t_min):
    return times.at[0].set(sde.T).at[-1].set(t_min)


TIME_GRIDS = {'uniform': uniform_grid, 'log_snr': log_snr_grid, 'karras': karras_grid}


# Predictors: steps of the reverse-time SDE with diffusion eta g (eta = 0: the probability flow).


def euler_maruyama(
    sde: SDE, score_fn: ScoreFn, noise: State, x: State, t: Array, s: Array, eta: float = 1.0
) -> Step:
    """Euler-Maruyama; strong order 1 for additive noise, weak order 1."""
    dt = expand(t - s, x)
    x_mean = x - sde.reverse_drift(x, t, score_fn(x, t), eta) * dt
    return Step(x_mean + eta * expand(sde.diffusion(t), x) * jnp.sqrt(dt) * noise, x_mean)


def reverse_diffusion(
    sde: SDE, score_fn: ScoreFn, noise: State, x: State, t: Array, s: Array, eta: float = 1.0
) -> Step:
    """Reverses the exact forward transition from s to t (Song et al. 2021, eq. 46)."""
    alpha_ts, sigma_ts = (expand(a, x) for a in sde.transition(s, t))
    x_mean = (2 - alpha_ts) * x + 0.5 * (1 + eta**2) * sigma_ts**2 * score_fn(x, t)
    return Step(x_mean + eta * sigma_ts * noise, x_mean)


def ancestral(
    sde: SDE, score_fn: ScoreFn, noise: State, x: State, t: Array, s: Array, eta: float = 1.0
) -> Step:
    """A transition of DDIM's family: ancestral sampling at eta = 1, deterministic at eta = 0.

    q(x_s | x_t, x_0) at the denoised x_0 (Ho et al. 2020, eq. 7; Song et al. 2021a,
    arXiv:2010.02502, eq. 12), for any linear SDE and pair of times, solved for the coefficients of
    x and score so that no large terms cancel.
    """
    alpha_ts, sigma_ts = sde.transition(s, t)
    sigma_t = sde.sigma(t)
    lost = jnp.minimum((sigma_ts / sigma_t) ** 2, 1.0)
    q = lost * (1 + eta**2 * (1 - lost))
    pull = sigma_t**2 * q / (1 + jnp.sqrt(1 - q))
    x_mean = (x + expand(pull, x) * score_fn(x, t)) / expand(alpha_ts, x)
    std = eta * sigma_ts * jnp.sqrt(1 - lost) / alpha_ts
    return Step(x_mean + expand(std, x) * noise, x_mean)


def ancestral_fixed_large(
    sde: SDE, score_fn: ScoreFn, noise: State, x: State, t: Array, s: Array, eta: float = 1.0
) -> Step:
    """`ancestral` with the larger of DDPM's two choices of variance, that of the forward
    transition.

    The published VP sampler (Ho et al. 2020, section 3.2: sigma_t^2 = beta_t).
    """
    x_mean = ancestral(sde, score_fn, noise, x, t, s, eta).x_mean
    _, sigma_ts = sde.transition(s, t)
    return Step(x_mean + eta * expand(sigma_ts, x) * noise, x_mean)


PREDICTORS = {
    'euler_maruyama': euler_maruyama,
    'reverse_diffusion': reverse_diffusion,
    'ancestral': ancestral,
    'ancestral_fixed_large': ancestral_fixed_large,
    'none': None,
}


# Correctors: steps of a Langevin chain at time t, before the predictor takes the state from t to s.


def langevin(
    sde: SDE,
    score_fn: ScoreFn,
    noise: State,
    x: State,
    t: Array,
    s: Array,
    snr: float,
    batch_mean: bool = False,
) -> Step:
    """Langevin step whose size gives a signal-to-noise ratio of `snr` (Song et al. 2021, algorithms
    4-5).

    Norms are those of each image; `batch_mean` takes their mean over the batch, as published.
    """
    score = score_fn(x, t)
    ratio = _norm(noise, batch_mean) / _norm(score, batch_mean)
    return _langevin_step(sde, score, noise, x, t, s, snr * ratio)


def annealed_langevin(
    sde: SDE,
    score_fn: ScoreFn,
    noise: State,
    x: State,
    t: Array,
    s: Array,
    snr: float,
    batch_mean: bool = False,
) -> Step:
    """Langevin step whose size is in proportion to sigma_t^2 (Song & Ermon 2019, algorithm 1)."""
    return _langevin_step(sde, score_fn(x, t), noise, x, t, s, snr * sde.sigma(t))


def _langevin_step(sde, score, noise, x, t, s, scale) -> Step:
    alpha_ts, _ = sde.transition(s, t)
    size = expand(2 * (alpha_ts * scale) ** 2, x)
    x_mean = x + size * score
    return Step(x_mean + jnp.sqrt(2 * size) * noise, x_mean)


def _norm(x: State, batch_mean: bool) -> Float[Array, 'batch']:
    norms = jnp.linalg.norm(x.reshape(x.shape[0], -1), axis=1)
    return jnp.full_like(norms, norms.mean()) if batch_mean else norms


CORRECTORS = {'langevin': langevin, 'annealed_langevin': annealed_langevin, 'none': None}


# Samplers.


def predictor_corrector(
    key: Key[Array, ''],
    score_fn: ScoreFn,
    shape: tuple[int, ...],
    *,
    sde: SDE,
    times: Float[Array, 'steps+1'],
    predictor: Callable | None,
    corrector: Callable | None,
    corrector_steps: int = 1,
    denoise: bool = True,
) -> Samples:
    """Predictor-corrector sampling (Song et al. 2021, algorithm 1): at each time corrector steps,
    then a predictor step.

    `predictor(sde, score_fn, noise, x, t, s)` and `corrector` likewise, or None. `denoise` returns
    the last state without the noise of its last step. One network evaluation per step of each kind.
    """
    corrections = corrector_steps if corrector is not None else 0
    steps_per_time = corrections + (predictor is not None)
    image_keys = keys.per_image(key, shape[0])

    def advance(state, scanned):
        i, t, s = scanned
        t, s = jnp.full(shape[0], t), jnp.full(shape[0], s)
        take = functools.partial(_take, sde, score_fn, image_keys, t, s)
        first = 1 + i * steps_per_time
        if corrector is not None:
            # A loop, so that NCSN's 100 corrections are not 100 copies of the network.
            state = lax.fori_loop(
                0, corrections, lambda j, state: take(corrector, first + j, state), state
            )
        if predictor is not None:
            state = take(predictor, first + corrections, state)
        return state, None

    x = sde.prior_std * keys.normal(image_keys, 0, shape[1:])
    num_steps = times.shape[0] - 1
    state, _ = lax.scan(advance, Step(x, x), (jnp.arange(num_steps), times[:-1], times[1:]))
    nfe = jnp.full(shape[0], num_steps * steps_per_time)
    return Samples(state.x_mean if denoise else state.x, nfe)


def _take(sde, score_fn, image_keys, t, s, step, index, state) -> Step:
    """The state after one predictor or corrector step, with the noise of this index."""
    noise = keys.normal(image_keys, index, state.x.shape[1:])
    return step(sde, score_fn, noise, state.x, t, s)


def probability_flow(
    key: Key[Array, ''],
    score_fn: ScoreFn,
    shape: tuple[int, ...],
    *,
    sde: SDE,
    t_min: float,
    solver: str = 'tsit5',
    rtol: float = 1e-5,
    atol: float = 1e-5,
    denoise: bool = False,
) -> Samples:
    """Solves the probability-flow ODE from T to t_min, each image with its own step sizes (Song et
    al. 2021, eq. 13).

    `denoise` returns E[x_0 | x] at the end, for one more evaluation.
    """
    image_keys = keys.per_image(key, shape[0])
    x = sde.prior_std * keys.normal(image_keys, 0, shape[1:])

    x, nfe = ode.solve(
        ode.velocity(sde, score_fn),
        x,
        None,
        sde.T,
        t_min,
        sde=sde,
        solver=solver,
        rtol=rtol,
        atol=atol,
    )
    if denoise:
        t = jnp.full(shape[0], t_min)
        x, nfe = sde.denoise(x, t, score_fn(x, t)), nfe + 1
    return Samples(x, nfe)

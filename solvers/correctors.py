"""Correctors: steps of a Langevin chain at time t, before the predictor goes on from t to s."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from parameterization import ScoreFn
from sde_lib import SDE, State, expand
from solvers.grid_solver import Step


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

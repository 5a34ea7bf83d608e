"""Predictors: steps of the reverse-time SDE with diffusion eta g (eta = 0: the probability flow).

Each takes a state from time t to an earlier time s, for one evaluation of the network, and gets its
noise as an argument.
"""

import jax.numpy as jnp
from jaxtyping import Array

from parameterization import ScoreFn
from sde_lib import SDE, State, expand
from solvers.grid_solver import Step


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


def ddim(
    sde: SDE, score_fn: ScoreFn, noise: State, x: State, t: Array, s: Array, eta: float = 0.0
) -> Step:
    """DDIM (Song et al. 2021a, arXiv:2010.02502): `ancestral`, without noise unless asked for."""
    return ancestral(sde, score_fn, noise, x, t, s, eta)


PREDICTORS = {
    'euler_maruyama': euler_maruyama,
    'reverse_diffusion': reverse_diffusion,
    'ancestral': ancestral,
    'ddim': ddim,
    'ancestral_fixed_large': ancestral_fixed_large,
    'none': None,
}

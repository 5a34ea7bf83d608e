"""Denoising score matching.

With x_t = alpha_t x_0 + sigma_t noise, the residual of a score model is sigma_t score(x_t, t) +
noise, and the loss of an image is

    weight(t) / p(t) * |sigma_t score(x_t, t) + noise|^2,    t ~ p on [t_min, T],

where p is relative to the uniform density, so that a proposal changes the variance and not the
mean. The discrete objectives of NCSN and DDPM are the same loss, with times on the chain's levels
(`levels`).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

import time_sampling
from choices import choose
from parameterization import ScoreFn
from sde_lib import SDE, expand

State = Float[Array, 'batch *shape']
Batch = Float[Array, 'batch']


def denoising_score_matching(
    score_fn: ScoreFn,
    key: Key[Array, ''],
    x0: State,
    *,
    sde: SDE,
    t_min: float,
    sample_times: Callable,
    weight: Callable,
    reduce_mean: bool,
) -> Batch:
    """One draw of the loss for each image (Song et al. 2021, eq. 7)."""
    key_t, key_noise = jax.random.split(key)
    times = sample_times(key_t, sde, t_min, x0.shape[0])
    noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
    squares = residual(score_fn, sde, x0, times.t, noise) ** 2
    return weight(sde, times.t) * times.inverse_density * reduce_pixels(squares, reduce_mean)


def residual(score_fn: ScoreFn, sde: SDE, x0: State, t: Batch, noise: State) -> State:
    """sigma_t score(x_t, t) + noise: zero in the mean, given x_t, for the exact score."""
    score = score_fn(sde.perturb(x0, t, noise), t)
    return expand(sde.sigma(t), x0) * score + noise


def reduce_pixels(squares: State, mean: bool) -> Batch:
    """The mean over pixels, or half of the sum: the two published conventions."""
    flat = squares.reshape(squares.shape[0], -1)
    return flat.mean(axis=1) if mean else 0.5 * flat.sum(axis=1)


# Weightings, in units of the squared residual.


def sigma2(sde: SDE, t: Batch) -> Batch:
    """sigma_t^2 in units of the squared error of the score: every noise level counts the same."""
    return jnp.ones_like(t)


def likelihood(sde: SDE, t: Batch) -> Batch:
    """g(t)^2 in units of the squared error of the score (Song et al. 2021b, arXiv:2101.09258).

    With `reduce_mean=False`, (T - t_min) times the loss is the part of a bound on -log p(x_0), in
    nats, that depends on the network.
    """
    return (sde.diffusion(t) / sde.sigma(t)) ** 2


def edm(sde: SDE, t: Batch, sigma_data: float = 0.5) -> Batch:
    """(s^2 + sigma_data^2) / (s sigma_data)^2 in units of the squared error of the denoiser.

    s = sigma / alpha (Karras et al. 2022, eq. 8 and table 1).
    """
    s = jnp.exp(-0.5 * sde.log_snr(t))
    return (s**2 + sigma_data**2) / sigma_data**2


WEIGHTINGS = {'sigma2': sigma2, 'likelihood': likelihood, 'edm': edm}


# Samplers of times.


def create(
    sde: SDE,
    *,
    t_min: float,
    weighting: str,
    time_sampler: str,
    reduce_mean: bool,
    log_sigma: tuple[float, float] = (-1.2, 1.2),
) -> Callable[[ScoreFn, Key[Array, ''], State], Batch]:
    """`loss(score_fn, key, x0) -> [batch]`; `log_sigma` is mean and deviation for 'log_normal'.

    Raises InputError for unknown names, and for what `create_time_sampler` refuses.
    """
    return functools.partial(
        denoising_score_matching,
        sde=sde,
        t_min=t_min,
        sample_times=time_sampling.create_time_sampler(time_sampler, sde, log_sigma),
        weight=choose(WEIGHTINGS, weighting, 'training.weighting'),
        reduce_mean=reduce_mean,
    )

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
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from choices import InputError, choose
from parameterization import ScoreFn
from sde_lib import SDE, Chain, expand

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


class Times(NamedTuple):
    """Times, and the uniform density on [t_min, T] over the density they were drawn from."""

    t: Batch
    inverse_density: Batch


def uniform(key: Key[Array, ''], sde: SDE, t_min: float, num: int) -> Times:
    """Independent times, uniform on [t_min, T]."""
    return _stretch(sde, t_min, jax.random.uniform(key, (num,)))


def stratified(key: Key[Array, ''], sde: SDE, t_min: float, num: int) -> Times:
    """Uniform, one in each of `num` equal parts, at one offset (Kingma et al. 2021)."""
    return _stretch(sde, t_min, _strata(key, num))


def importance(key: Key[Array, ''], sde: SDE, t_min: float, num: int) -> Times:
    """Stratified times for the likelihood weighting: softplus(log_snr) is uniform.

    If the data are N(0, I) and the score is exact, g^2 |residual|^2 / sigma^2 has mean -d
    softplus(log_snr) / dt, so that this proposal makes the loss constant in t. It generalises the
    closed forms of Vahdat et al. 2021 (appendix B) to every linear SDE.
    """
    ends = jax.nn.softplus(sde.log_snr(jnp.array([t_min, sde.T])))
    decline = ends[0] - ends[1]
    log_snr = _inverse_softplus(ends[0] - _strata(key, num) * decline)
    t = jnp.clip(sde.time_at_log_snr(log_snr), t_min, sde.T)
    rate = jax.nn.sigmoid(log_snr) * (sde.diffusion(t) / sde.sigma(t)) ** 2
    return Times(t, decline / (rate * (sde.T - t_min)))


def log_snr(key: Key[Array, ''], sde: SDE, t_min: float, num: int) -> Times:
    """Stratified times whose log signal-to-noise ratio is uniform (Kingma et al. 2021, VDM).

    The likelihood weighting then weighs all times alike: its measure is d log_snr.
    """
    t = log_uniform(key, sde, t_min, num).t
    ends = sde.log_snr(jnp.array([t_min, sde.T]))
    rate = (sde.diffusion(t) / sde.sigma(t)) ** 2
    return Times(t, (ends[0] - ends[1]) / (rate * (sde.T - t_min)))


def log_uniform(key: Key[Array, ''], sde: SDE, t_min: float, num: int) -> Times:
    """The same times, with their density as part of the weighting, as in `log_normal`."""
    ends = sde.log_snr(jnp.array([t_min, sde.T]))
    t = sde.time_at_log_snr(ends[0] - _strata(key, num) * (ends[0] - ends[1]))
    return Times(jnp.clip(t, t_min, sde.T), jnp.ones(num))


def log_normal(
    key: Key[Array, ''], sde: SDE, t_min: float, num: int, *, mean: float, std: float
) -> Times:
    """log(sigma / alpha) ~ N(mean, std^2): EDM's proposal (-1.2, 1.2); its density is part
    of the weighting."""
    log_snr = -2 * (mean + std * jax.scipy.stats.norm.ppf(_strata(key, num)))
    t = jnp.clip(sde.time_at_log_snr(log_snr), t_min, sde.T)
    return Times(t, jnp.ones(num))


def levels(key: Key[Array, ''], sde: SDE, t_min: float, num: int) -> Times:
    """The times of levels drawn uniformly, for a DDPM or SMLD chain."""
    level = jax.random.randint(key, (num,), 0, sde.num_scales)
    return Times((level + 1) / sde.num_scales, jnp.ones(num))


TIME_SAMPLERS = {
    'uniform': uniform,
    'stratified': stratified,
    'importance': importance,
    'log_snr': log_snr,
    'log_uniform': log_uniform,
    'log_normal': log_normal,
    'levels': levels,
}


def create_time_sampler(
    name: str, sde: SDE, log_sigma: tuple[float, float] = (-1.2, 1.2)
) -> Callable[[Key[Array, ''], SDE, float, int], Times]:
    """The sampler of that name; `log_sigma` is mean and deviation for 'log_normal'.

    Raises InputError for an unknown name, and unless 'levels' and chains come together.
    """
    sample_times = choose(TIME_SAMPLERS, name, 'training.time_sampler')
    if (sample_times is levels) != isinstance(sde, Chain):
        raise InputError(
            f'training.time_sampler: {name!r} does not go with {type(sde).__name__}; '
            "'levels' is for the chains ('ddpm' and 'smld'), which allow no other"
        )
    if sample_times is log_normal:
        return functools.partial(log_normal, mean=log_sigma[0], std=log_sigma[1])
    return sample_times


def _strata(key: Key[Array, ''], num: int) -> Batch:
    return (jnp.arange(num) + jax.random.uniform(key)) / num


def _stretch(sde: SDE, t_min: float, fraction: Batch) -> Times:
    return Times(t_min + fraction * (sde.T - t_min), jnp.ones_like(fraction))


def _inverse_softplus(y: Batch) -> Batch:
    """log(exp(y) - 1), without overflow."""
    return y + jnp.log(-jnp.expm1(-y))


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
        sample_times=create_time_sampler(time_sampler, sde, log_sigma),
        weight=choose(WEIGHTINGS, weighting, 'training.weighting'),
        reduce_mean=reduce_mean,
    )

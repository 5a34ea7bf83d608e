"""At which times an objective is taken: proposals p(t) on [t_min, T].

A sampler gives times and the uniform density over the one that they are drawn from, so that a mean
over them, weighted by it, is one over uniform times: a proposal changes the variance and not the
mean. Of the last two the density is part of the weighting instead.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from choices import ArgumentError, choose
from sde_lib import SDE, Chain, Number
from shapes import OneKey, PerImage


class Times(NamedTuple):
    """Times, and the uniform density on [t_min, T] over the density they were drawn from."""

    t: PerImage
    inverse_density: PerImage


def uniform(key: OneKey, sde: SDE, t_min: Number, num: int) -> Times:
    """Independent times, uniform on [t_min, T]."""
    return _stretch(sde, t_min, jax.random.uniform(key, (num,)))


def stratified(key: OneKey, sde: SDE, t_min: Number, num: int) -> Times:
    """Uniform, one in each of `num` equal parts, at one offset (Kingma et al. 2021)."""
    return _stretch(sde, t_min, _strata(key, num))


def importance(key: OneKey, sde: SDE, t_min: Number, num: int) -> Times:
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


def log_snr(key: OneKey, sde: SDE, t_min: Number, num: int) -> Times:
    """Stratified times whose log signal-to-noise ratio is uniform (Kingma et al. 2021, VDM).

    The likelihood weighting then weighs all times alike: its measure is d log_snr.
    """
    t = log_uniform(key, sde, t_min, num).t
    ends = sde.log_snr(jnp.array([t_min, sde.T]))
    rate = (sde.diffusion(t) / sde.sigma(t)) ** 2
    return Times(t, (ends[0] - ends[1]) / (rate * (sde.T - t_min)))


def log_uniform(key: OneKey, sde: SDE, t_min: Number, num: int) -> Times:
    """Stratified times whose log signal-to-noise ratio is uniform, with their density as part of
    the weighting, as in `log_normal`.
    """
    ends = sde.log_snr(jnp.array([t_min, sde.T]))
    t = sde.time_at_log_snr(ends[0] - _strata(key, num) * (ends[0] - ends[1]))
    return Times(jnp.clip(t, t_min, sde.T), jnp.ones(num))


def log_normal(key: OneKey, sde: SDE, t_min: Number, num: int, *, mean: float, std: float) -> Times:
    """log(sigma / alpha) ~ N(mean, std^2): EDM's proposal (-1.2, 1.2); its density is part
    of the weighting."""
    log_snr = -2 * (mean + std * jax.scipy.stats.norm.ppf(_strata(key, num)))
    t = jnp.clip(sde.time_at_log_snr(log_snr), t_min, sde.T)
    return Times(t, jnp.ones(num))


def levels(key: OneKey, sde: SDE, t_min: Number, num: int) -> Times:
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


def create(
    name: str, sde: SDE, log_sigma: tuple[float, float] = (-1.2, 1.2)
) -> Callable[[OneKey, SDE, Number, int], Times]:
    """The sampler of that name; `log_sigma` is mean and deviation for 'log_normal'.

    Raises ArgumentError for an unknown name, and unless 'levels' and chains come together.
    """
    sample_times = choose(TIME_SAMPLERS, name, 'time_sampler')
    if (sample_times is levels) != isinstance(sde, Chain):
        raise ArgumentError(
            'time_sampler',
            f'{name!r} does not go with {type(sde).__name__}; '
            "'levels' is for the chains ('ddpm' and 'smld'), which allow no other",
        )
    if sample_times is log_normal:
        return functools.partial(log_normal, mean=log_sigma[0], std=log_sigma[1])
    return sample_times


def _strata(key: OneKey, num: int) -> PerImage:
    return (jnp.arange(num) + jax.random.uniform(key)) / num


def _stretch(sde: SDE, t_min: Number, fraction: PerImage) -> Times:
    return Times(t_min + fraction * (sde.T - t_min), jnp.ones_like(fraction))


def _inverse_softplus(y: PerImage) -> PerImage:
    """log(exp(y) - 1), without overflow."""
    return y + jnp.log(-jnp.expm1(-y))

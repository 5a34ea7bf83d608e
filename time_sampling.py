"""At which times an objective is taken: proposals p(t) on [t_min, T].

A sampler gives times and the uniform density over the one that they are drawn from, so that a mean
over them, weighted by it, is one over uniform times: a proposal changes the variance and not the
mean. Of `log_uniform` and `log_normal` the density is part of the weighting instead.

Importance sampling draws times where a weighted loss is large. Its model of the loss is that of
data N(0, I) and the exact score, of which the squared residual has the mean sigmoid(log_snr) in
each dimension. So there is one proposal for each weighting w of losses.py, in proportion to
w sigmoid(log_snr), by an integral of it that can be inverted, or else by a table. For other data
the loss is no longer constant in t; its mean over times is the same.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from choices import ArgumentError, choose
from sde_lib import EDM, SDE, VE, VP, Chain, CosineVP, GeometricVP, Number
from shapes import OneKey, PerImage

# Of them alpha^2 + sigma^2 = 1, but for sigma_min^2 of the geometric one; of the others alpha = 1.
VARIANCE_PRESERVING = (VP, CosineVP, GeometricVP)
WITHOUT_DRIFT = (VE, EDM)

# Cells of a table, over a range of log signal-to-noise ratios of about 20: in a cell the density
# changes by 1 %.
CELLS = 2048


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
    """Stratified times for the weighting 'likelihood': softplus(log_snr) is uniform.

    As g^2 / sigma^2 = -d log_snr / dt, the proposal g^2 / sigma^2 sigmoid(log_snr) has this
    integral for every linear SDE, of which Vahdat et al. 2021 (appendix B) have two cases: log
    sigma^2 is uniform for VP, and t for the geometric VP SDE.
    """
    return _uniform_in(LOG_TOTAL, key, sde, t_min, num)


def importance_sigma2(key: OneKey, sde: SDE, t_min: Number, num: int) -> Times:
    """Stratified times for the weighting 'sigma2', in proportion to sigmoid(log_snr).

    Of VP, alpha^2 is a part of a normal density in t (Vahdat et al. 2021, appendix B); of VE the
    log signal-to-noise ratio is linear in t. Of other SDEs by a table.
    """
    if isinstance(sde, VE):
        return importance(key, sde, t_min, num)
    if isinstance(sde, VP) and _is_known_to_erf(sde):
        return _normal_part(key, sde, t_min, num)
    return _tabulated(jnp.ones_like, key, sde, t_min, num)


def importance_reweighted(key: OneKey, sde: SDE, t_min: Number, num: int) -> Times:
    """Stratified times for the weighting 'reweighted', in proportion to g^2 sigmoid(log_snr).

    sigma^2 is uniform where the variance is preserved (Vahdat et al. 2021, appendix B), and
    log(1 + sigma^2) where alpha = 1. Of other SDEs by a table.
    """
    if isinstance(sde, VARIANCE_PRESERVING):
        return _uniform_in(SIGNAL_SHARE, key, sde, t_min, num)
    if isinstance(sde, WITHOUT_DRIFT):
        return _uniform_in(LOG_NOISE, key, sde, t_min, num)
    return _tabulated(lambda t: sde.diffusion(t) ** 2, key, sde, t_min, num)


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


def fixed(key: OneKey, sde: SDE, t_min: Number, num: int) -> Times:
    """The one time `t_min`: the objective of one noise level."""
    return Times(jnp.full(num, t_min, float), jnp.ones(num))


TIME_SAMPLERS = {
    'uniform': uniform,
    'stratified': stratified,
    'importance': importance,
    'importance_sigma2': importance_sigma2,
    'importance_reweighted': importance_reweighted,
    'log_snr': log_snr,
    'log_uniform': log_uniform,
    'log_normal': log_normal,
    'levels': levels,
    'fixed': fixed,
}

# Those of which a part of a batch has the law of all of it; the others share out the batch.
INDEPENDENT = ('uniform', 'levels', 'fixed')


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
    """One fraction in each of `num` equal parts of [0, 1), at one offset."""
    fraction = (jnp.arange(num) + jax.random.uniform(key)) / num
    # Rounding would make 1 of a few in a million, where densities may be zero.
    return jnp.minimum(fraction, 1 - jnp.finfo(fraction.dtype).epsneg)


def _stretch(sde: SDE, t_min: Number, fraction: PerImage) -> Times:
    return Times(t_min + fraction * (sde.T - t_min), jnp.ones_like(fraction))


def _between(ends: Float[Array, '2'], fraction: PerImage) -> PerImage:
    """From the first end to the second. Both terms are rounded by themselves: a second end that is
    tiny beside the first is met, and not passed.
    """
    return (1 - fraction) * ends[0] + fraction * ends[1]


class Integral(NamedTuple):
    """A monotone function of the log signal-to-noise ratio, its derivative and its inverse."""

    value: Callable[[PerImage], PerImage]
    slope: Callable[[PerImage], PerImage]
    inverse: Callable[[PerImage], PerImage]


def _inverse_softplus(y: PerImage) -> PerImage:
    """log(exp(y) - 1), without overflow."""
    return y + jnp.log(-jnp.expm1(-y))


# log(1 + alpha^2 / sigma^2), alpha^2 / (alpha^2 + sigma^2), and minus log(1 + sigma^2 / alpha^2).
LOG_TOTAL = Integral(jax.nn.softplus, jax.nn.sigmoid, _inverse_softplus)
SIGNAL_SHARE = Integral(
    jax.nn.sigmoid, lambda x: jax.nn.sigmoid(x) * jax.nn.sigmoid(-x), jax.scipy.special.logit
)
LOG_NOISE = Integral(
    jax.nn.log_sigmoid, lambda x: jax.nn.sigmoid(-x), lambda y: -_inverse_softplus(-y)
)


def _uniform_in(integral: Integral, key: OneKey, sde: SDE, t_min: Number, num: int) -> Times:
    """Stratified times at which this function of the log signal-to-noise ratio is uniform."""
    log_snrs = sde.log_snr(jnp.array([t_min, sde.T]))
    ends = integral.value(log_snrs)
    log_snr = integral.inverse(_between(ends, _strata(key, num)))
    log_snr = jnp.clip(log_snr, log_snrs[1], log_snrs[0])
    density = integral.slope(log_snr) / (ends[0] - ends[1])
    return _at_log_snr(sde, t_min, log_snr, density)


def _tabulated(
    weight: Callable[[PerImage], PerImage], key: OneKey, sde: SDE, t_min: Number, num: int
) -> Times:
    """Stratified times in proportion to weight(t) sigmoid(log_snr), about.

    The density is constant in the log signal-to-noise ratio over each cell of a table: it is that
    in its middle, and exactly the one that times are drawn from.
    """
    first, last = sde.log_snr(jnp.array([t_min, sde.T]))
    width = (first - last) / CELLS
    middles = first - width * (jnp.arange(CELLS) + 0.5)
    t = sde.time_at_log_snr(middles)
    rates = weight(t) * jax.nn.sigmoid(middles) * (sde.sigma(t) / sde.diffusion(t)) ** 2
    totals = jnp.cumsum(rates)
    shares, ends = rates / totals[-1], jnp.concatenate([jnp.zeros(1), totals / totals[-1]])
    fraction = _strata(key, num)
    # From the left: where rounding leaves cells at the end empty, none of them is chosen.
    cell = jnp.clip(jnp.searchsorted(ends, fraction, side='left') - 1, 0, CELLS - 1)
    part = jnp.clip((fraction - ends[cell]) / shares[cell], 0, 1)
    return _at_log_snr(sde, t_min, first - width * (cell + part), shares[cell] / width)


def _at_log_snr(sde: SDE, t_min: Number, log_snr: PerImage, density: PerImage) -> Times:
    """The times at which log signal-to-noise ratios are these, which have this density."""
    t = jnp.clip(sde.time_at_log_snr(log_snr), t_min, sde.T)
    rate = density * (sde.diffusion(t) / sde.sigma(t)) ** 2
    return Times(t, 1 / (rate * (sde.T - t_min)))


def _is_known_to_erf(sde: VP) -> bool:
    """Whether erf and its inverse, in float32, resolve all of [0, T]: not so if beta rises too far,
    or hardly at all. Numbers that are arrays may become anything.
    """
    if not all(isinstance(number, float | int) for number in (sde.beta_min, sde.beta_max)):
        return False
    slope = sde.beta_max - sde.beta_min
    return sde.beta_min**2 < 2 * slope and sde.beta_max < 3.3 * math.sqrt(2 * slope)


def _normal_part(key: OneKey, sde: VP, t_min: Number, num: int) -> Times:
    """Stratified times in proportion to alpha^2 of VP, which is that of a normal density with its
    mean before 0: exp(-z^2) up to a factor, with z = beta(t) / sqrt(2 d beta / dt).
    """
    slope = sde.beta_max - sde.beta_min
    ends = jax.scipy.special.erf(sde.beta(jnp.array([t_min, sde.T])) / math.sqrt(2 * slope))
    z = jax.scipy.special.erfinv(_between(ends, _strata(key, num)))
    t = jnp.clip((math.sqrt(2 * slope) * z - sde.beta_min) / slope, t_min, sde.T)
    z = sde.beta(t) / math.sqrt(2 * slope)
    density = math.sqrt(2 * slope / math.pi) * jnp.exp(-(z**2)) / (ends[1] - ends[0])
    return Times(t, 1 / (density * (sde.T - t_min)))

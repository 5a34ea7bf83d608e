"""Distributions of the 8-bit values of pixels, whose parameters a decoder gives.

Each says how many numbers it needs of a pixel, and is a probability of every value: those of all
values of a pixel sum to 1. Values v = 0..255 stand at v / 127.5 - 1, with bins half a step to each
side; the first and the last bin are open (Salimans et al. 2017, arXiv:1701.05517).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from shapes import Floats, PerImage, Pixels

Edges = Float[Array, '...']

COMPONENTS = 10
# So that no bin has all of the probability, which would leave no gradient to learn from.
MIN_LOG_SCALE = -7.0
HALF_BIN = 1 / 255


class PixelDistribution(NamedTuple):
    """`num_features(channels)` are the numbers that a pixel with so many channels needs.

    `log_prob(features, pixels)` is the log-probability of each image in nats, `mean(features)` the
    expected pixels, from 0 to 1. `is_binary`: the values are 0 and 255 alone.
    """

    num_features: Callable[[int], int]
    log_prob: Callable[[Floats, Pixels], PerImage]
    mean: Callable[[Floats], Floats]
    is_binary: bool = False


# Two values


def _bernoulli_log_prob(logits, pixels):
    is_on = pixels > 127
    return _of_images(jnp.where(is_on, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)))


BERNOULLI = PixelDistribution(
    num_features=lambda channels: channels,
    log_prob=_bernoulli_log_prob,
    mean=jax.nn.sigmoid,
    is_binary=True,
)


# A normal density over each bin


def _normal_log_prob(features, pixels):
    mean, log_scale = jnp.split(features, 2, axis=-1)
    log_scale = jnp.maximum(log_scale, MIN_LOG_SCALE)
    return _of_images(_log_share(_normal_between, _positions(pixels), pixels, mean, log_scale))


NORMAL = PixelDistribution(
    num_features=lambda channels: 2 * channels,
    log_prob=_normal_log_prob,
    mean=lambda features: _unit(jnp.split(features, 2, axis=-1)[0]),
)


# A mixture of logistic densities over each bin


def _mixture_parts(features, channels):
    """Logits of the components, and of each channel and component: mean, log scale, and the weights
    of the channels before it; the last axis is that of components.
    """
    logits, rest = jnp.split(features, [COMPONENTS], axis=-1)
    num_weights = channels * (channels - 1) // 2
    rest = rest.reshape(*features.shape[:-1], 2 * channels + num_weights, COMPONENTS)
    means, log_scales, weights = jnp.split(rest, [channels, 2 * channels], axis=-2)
    return logits, means, jnp.maximum(log_scales, MIN_LOG_SCALE), jnp.tanh(weights)


def _conditional_means(means, weights, x):
    """The mean of each channel, given the values `x` of those before it, in every component."""
    channels, found, used = means.shape[-2], [], 0
    for channel in range(channels):
        mean = means[..., channel, :]
        for before in range(channel):
            mean = mean + weights[..., used + before, :] * x[..., before, :]
        used += channel
        found.append(mean)
    return jnp.stack(found, axis=-2)


def _mixture_log_prob(features, pixels):
    logits, means, log_scales, weights = _mixture_parts(features, pixels.shape[-1])
    x = _positions(pixels)[..., None]
    means = _conditional_means(means, weights, x)
    of_channels = _log_share(_logistic_between, x, pixels[..., None], means, log_scales)
    of_components = jax.nn.log_softmax(logits) + of_channels.sum(axis=-2)
    return _of_images(jax.nn.logsumexp(of_components, axis=-1))


def _mixture_mean(features):
    """The mean of the components, each with the means of its channels in the place of values."""
    channels = 1 if features.shape[-1] == 3 * COMPONENTS else 3
    logits, means, _, weights = _mixture_parts(features, channels)
    found = means
    for _ in range(channels - 1):  # Each time one more channel has its own.
        found = _conditional_means(means, weights, found)
    return _unit(jnp.sum(jax.nn.softmax(logits)[..., None, :] * found, axis=-1))


LOGISTIC_MIXTURE = PixelDistribution(
    num_features=lambda channels: COMPONENTS * (1 + 2 * channels + channels * (channels - 1) // 2),
    log_prob=_mixture_log_prob,
    mean=_mixture_mean,
)

PIXEL_DISTRIBUTIONS = {
    'bernoulli': BERNOULLI,
    'discretised_normal': NORMAL,
    'discretised_logistic_mixture': LOGISTIC_MIXTURE,
}


# Shares of bins


def _positions(pixels: Pixels) -> Floats:
    return pixels / jnp.float32(127.5) - 1


def _unit(x: Floats) -> Floats:
    return jnp.clip(0.5 * (x + 1), 0, 1)


def _of_images(log_probs: Float[Array, 'batch *shape']) -> PerImage:
    return log_probs.reshape(len(log_probs), -1).sum(axis=1)


def _log_share(between, x, pixels, mean, log_scale):
    """The logarithm of what a density has in the bin at x; beyond the last values all of it."""
    scale = jnp.exp(-log_scale)
    low, high = ((x + side - mean) * scale for side in (-HALF_BIN, HALF_BIN))
    return between(low, high, pixels == 0, pixels == 255)


def _logistic_between(low, high, is_first, is_last):
    """log(sigmoid(high) - sigmoid(low)), which is sigmoid(high) sigmoid(-low) (1 - exp(low - high))
    and so loses no digits where both are near 0 or 1.
    """
    below_high, above_low = jax.nn.log_sigmoid(high), jax.nn.log_sigmoid(-low)
    inside = below_high + above_low + jnp.log(-jnp.expm1(low - high))
    return jnp.where(is_first, below_high, jnp.where(is_last, above_low, inside))


def _normal_between(low, high, is_first, is_last):
    """log(Phi(high) - Phi(low)), on that side of 0 on which both are small."""
    log_cdf = jax.scipy.stats.norm.logcdf
    flip = low + high > 0
    lower, upper = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    log_upper = log_cdf(upper)
    inside = log_upper + jnp.log(-jnp.expm1(log_cdf(lower) - log_upper))
    return jnp.where(is_first, log_cdf(high), jnp.where(is_last, log_cdf(-low), inside))

"""Bounds on the log-likelihood of images: variational, and importance-weighted; of codes, their
cross-entropy.

The reverse-time SDE is a hierarchical latent-variable model, whose evidence bound is the
likelihood-weighted training loss and two terms without times (Song et al. 2021b, arXiv:2101.09258,
theorem 3; Kingma et al. 2021, arXiv:2107.00630, eq. 11). With eps = t_min,

    -log p(x_0) <= KL(q(x_T | x_0) || prior)
                   + 1/2 int_eps^T g^2 / sigma^2 E |sigma score(x_t, t) + noise|^2 dt
                   + E[-log N(x_0; denoised(x_eps), (sigma_eps / alpha_eps)^2 I)].

It bounds the density of the reverse-time SDE's samples, which is that of the ODE's if the score is
exact. For N(0, s^2) and the exact score the bound's slack, beside the prior's distance from p_T, is
(log(1 + r) - r / (1 + r)) / 2 a dimension, with r = 1 / (s^2 SNR(eps)): r^2 / 4 where r is small.

Of codes the integral, and the entropy of the noise at eps in the place of the two other terms, is
the cross-entropy (Vahdat et al. 2021, arXiv:2106.05931, theorem 1). For the score of N(0, I) the
integral is known. So only the difference from it is sampled, by the same noise: a control variate,
which leaves a fraction of the variance for codes that are nearly normal.

Dequantisation is a latent variable too: P(v) = E_u[p(v + u)] for uniform u, so that the mean of K
densities bounds it more tightly than one (Burda et al. 2016, arXiv:1509.00519).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

import keys
import losses
import time_sampling
from parameterization import Process
from sde_lib import SDE, Number
from shapes import ImageKeys, PerImage, State


class Variational(NamedTuple):
    """A bound on -log p in nats, and its standard error over draws; nan for one draw."""

    bound: PerImage
    standard_error: PerImage


def variational(
    image_keys: ImageKeys,
    process: Process,
    x0: State,
    *,
    num_draws: int,
    t_min: Number | None = None,
) -> Variational:
    """The variational bound from `t_min` (None: the SDE's) on, by `num_draws` times and noises; two
    evaluations each.

    An image's times are stratified, in proportion to the loss of an exact score of normal data.
    """
    sde = process.sde
    t_min = sde.t_min if t_min is None else t_min

    def reconstruction(noise):
        return _reconstruction(process, x0, jnp.full(len(x0), t_min), noise)

    def square(t, noise):
        return _half_square(losses.residual(process, x0, t, noise))

    found = _over_times(image_keys, sde, x0, num_draws, t_min, square, reconstruction)
    return found._replace(bound=prior_divergence(sde, x0) + found.bound)


def cross_entropy(
    image_keys: ImageKeys,
    process: Process,
    x0: State,
    *,
    num_draws: int,
    t_min: Number | None = None,
) -> Variational:
    """`losses.cross_entropy` by `num_draws` times and noises for each image, one evaluation each.

    Times are stratified, and what is drawn is the difference from N(0, I). The mean over many
    images is near that of -log p(x_0) by the ODE, if the score is good and t_min is early: how far
    apart they are tells about both.
    """
    sde = process.sde
    t_min = sde.t_min if t_min is None else t_min
    normal = Process(sde, sde.normal_score)

    def square(t, noise):
        residuals = (losses.residual(each, x0, t, noise) for each in (process, normal))
        ours, known = map(_half_square, residuals)
        return ours - known

    found = _over_times(image_keys, sde, x0, num_draws, t_min, square)
    known = losses.noise_entropy(sde, t_min, x0) + losses.normal_integral(sde, x0, t_min)
    return found._replace(bound=known + found.bound)


def _over_times(
    image_keys: ImageKeys,
    sde: SDE,
    x0: State,
    num_draws: int,
    t_min: Number,
    square: Callable[[PerImage, State], PerImage],
    beside: Callable[[State], PerImage | float] = lambda noise: 0.0,
) -> Variational:
    """The mean over draws of the integral over times of `square(t, noise)`, weighted, and of a
    term of the same noise `beside`."""
    keys_times, keys_noise = keys.split(image_keys, 2)
    times = jax.vmap(lambda key: time_sampling.importance(key, sde, t_min, num_draws))(keys_times)

    def draw(scanned):
        j, t, inverse_density = scanned
        noise = keys.normal(keys_noise, j, x0.shape[1:])
        return (
            (sde.T - t_min) * losses.likelihood(sde, t) * inverse_density * square(t, noise)
        ) + beside(noise)

    draws = lax.map(draw, (jnp.arange(num_draws), times.t.T, times.inverse_density.T))
    standard_error = jnp.std(draws, axis=0, ddof=1) / math.sqrt(num_draws)
    return Variational(draws.mean(axis=0), standard_error)


def prior_divergence(sde: SDE, x0: State) -> PerImage:
    """KL(q(x_T | x_0) || prior), in nats."""
    T = jnp.float32(sde.T)
    log_ratio = 2 * (jnp.log(sde.sigma(T)) - jnp.log(sde.prior_std))
    mean = sde.alpha(T) / sde.prior_std * x0
    # exp(r) - 1 - r in the spread, where a float's exp(r) - 1 would lose small r.
    spread = jnp.full_like(x0, jnp.expm1(log_ratio) - log_ratio)
    return 0.5 * jnp.sum((spread + mean**2).reshape(len(x0), -1), axis=1)


def _reconstruction(process: Process, x0: State, t: PerImage, noise: State) -> PerImage:
    """-log N(x_0; denoised(x_t), (sigma_t / alpha_t)^2 I), where the denoised x_t is x_0 - sigma_t
    / alpha_t residual."""
    dim = math.prod(x0.shape[1:])
    log_normaliser = 0.5 * dim * (math.log(2 * math.pi) - process.sde.log_snr(t))
    return log_normaliser + _half_square(losses.residual(process, x0, t, noise))


def _half_square(residual: State) -> PerImage:
    return losses.reduce_pixels(residual**2, mean=False)


def importance_weighted(log_probs: Float[Array, 'batch draws probes']) -> PerImage:
    """A lower bound on log E_u[p(v + u)], from the log-densities of draws of u, by several probes.

    With the exact divergence (one 'probe') it is the logarithm of the draws' mean density. Noisy
    log-densities would push that mean up, past the truth: there the weights w of draws come from
    all probes but one, and the log-densities from that one. As

        log mean_k p_k >= sum_k w_k log(p_k / w_k) - log K    for any weights of sum 1,

    with equality for w in proportion to p, this is a bound in the mean however noisy the weights
    are; at worst log K below the mean log-density. It is averaged over the probe that is left out.
    """
    num_draws, num_probes = log_probs.shape[1:]
    if num_probes == 1:
        return jax.scipy.special.logsumexp(log_probs[:, :, 0], axis=1) - math.log(num_draws)
    others = (log_probs.sum(axis=2, keepdims=True) - log_probs) / (num_probes - 1)
    log_weights = jax.nn.log_softmax(others, axis=1)
    terms = jnp.exp(log_weights) * (log_probs - log_weights)
    return terms.sum(axis=1).mean(axis=1) - math.log(num_draws)

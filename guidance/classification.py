"""Which class a noisy image is of: log p(y | x_t), its cross-entropy and its accuracy.

x_t / alpha_t = x_0 + (sigma_t / alpha_t) noise, whatever the linear SDE: a network that is given
this image, and told sigma_t / alpha_t, classifies for all of them. For the VE SDE these are x_t and
sigma_t, as in the published class-conditional sampling (Song et al. 2021, appendix I.1).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from sde_lib import SDE, expand

State = Float[Array, 'batch *shape']
Batch = Float[Array, 'batch']
Classes = Int[Array, 'batch']
# (x, sigma) -> logits.
Network = Callable[[State, Batch], Float[Array, 'batch classes']]
# (x, t) -> log p(y | x_t) for every class y.
ClassLogProbs = Callable[[State, Batch], Float[Array, 'batch classes']]


class Scores(NamedTuple):
    """How well images are classified."""

    cross_entropy: Batch  # in nats
    correct: Bool[Array, 'batch']


def class_log_probs(sde: SDE, network: Network, t_min: float) -> ClassLogProbs:
    """log p(y | x_t) of every class, by a network for x_0 + sigma noise.

    The network knows noise from that of `t_min` on, and is told that of images with less, too.
    """

    def log_probs(x, t):
        sigma = jnp.exp(-0.5 * sde.log_snr(jnp.maximum(t, t_min)))
        return jax.nn.log_softmax(network(x / expand(sde.alpha(t), x), sigma))

    return log_probs


def log_prob(log_probs_fn: ClassLogProbs, y: Classes, x: State, t: Batch) -> Batch:
    """log p(y | x_t) in nats, whose gradient in `x` turns a score into that of p(x_t | y)."""
    return jnp.take_along_axis(log_probs_fn(x, t), y[:, None], axis=1)[:, 0]


def cross_entropy(
    log_probs_fn: ClassLogProbs,
    key: Key[Array, ''],
    x0: State,
    y: Classes,
    *,
    sde: SDE,
    t_min: float,
    sample_times: Callable,
) -> Batch:
    """One draw of -log p(y | x_t) for each image, at the times of one of losses.TIME_SAMPLERS."""
    key_t, key_noise = jax.random.split(key)
    times = sample_times(key_t, sde, t_min, x0.shape[0])
    noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
    x = sde.perturb(x0, times.t, noise)
    return -times.inverse_density * log_prob(log_probs_fn, y, x, times.t)


def scores(log_probs_fn: ClassLogProbs, y: Classes, x: State, t: Batch) -> Scores:
    """Cross-entropy, and whether the most probable class is `y`."""
    log_probs = log_probs_fn(x, t)
    own = jnp.take_along_axis(log_probs, y[:, None], axis=1)[:, 0]
    return Scores(-own, log_probs.argmax(1) == y)

"""Which class a noisy image is of: log p(y | x_t), its cross-entropy and its accuracy.

x_t / alpha_t = x_0 + (sigma_t / alpha_t) noise, whatever the linear SDE: a network that is given
this image, and told sigma_t / alpha_t, classifies for all of them. For the VE SDE these are x_t and
sigma_t, as in the published class-conditional sampling (Song et al. 2021, appendix I.1).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

import time_sampling
from sde_lib import SDE, Number, expand
from shapes import Classes, OneKey, PerImage, State

Logits = Float[Array, 'batch classes']
# (x, sigma) -> logits.
Network = Callable[[State, PerImage], Logits]
# (x, t) -> log p(y | x_t) for every class y.
ClassLogProbs = Callable[[State, PerImage], Logits]


class Scores(NamedTuple):
    """How well images are classified."""

    cross_entropy: PerImage  # in nats
    correct: Bool[Array, 'batch']


def class_log_probs(sde: SDE, network: Network, t_min: Number) -> ClassLogProbs:
    """log p(y | x_t) of every class, by a network for x_0 + sigma noise.

    The network knows noise from that of `t_min` on, and is told that of images with less, too.
    """

    def log_probs(x, t):
        sigma = jnp.exp(-0.5 * sde.log_snr(jnp.maximum(t, t_min)))
        return jax.nn.log_softmax(network(x / expand(sde.alpha(t), x), sigma))

    return log_probs


def log_prob(log_probs_fn: ClassLogProbs, y: Classes, x: State, t: PerImage) -> PerImage:
    """log p(y | x_t) in nats, whose gradient in `x` turns a score into that of p(x_t | y)."""
    return jnp.take_along_axis(log_probs_fn(x, t), y[:, None], axis=1)[:, 0]


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """One draw of -log p(y | x_t) for each image, at the times of one of
    time_sampling.TIME_SAMPLERS from `t_min` on; `log_sigma` is mean and deviation for 'log_normal'.
    """

    time_sampler: str
    t_min: Number
    log_sigma: tuple[float, float] = (-1.2, 1.2)

    def __call__(
        self, log_probs_fn: ClassLogProbs, sde: SDE, key: OneKey, x0: State, y: Classes
    ) -> PerImage:
        """In nats; ArgumentError if the times are not those of the SDE."""
        key_t, key_noise = jax.random.split(key)
        sample_times = time_sampling.create(self.time_sampler, sde, self.log_sigma)
        times = sample_times(key_t, sde, self.t_min, x0.shape[0])
        noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
        x = sde.perturb(x0, times.t, noise)
        return -times.inverse_density * log_prob(log_probs_fn, y, x, times.t)


def scores(log_probs_fn: ClassLogProbs, y: Classes, x: State, t: PerImage) -> Scores:
    """Cross-entropy, and whether the most probable class is `y`."""
    log_probs = log_probs_fn(x, t)
    own = jnp.take_along_axis(log_probs, y[:, None], axis=1)[:, 0]
    return Scores(-own, log_probs.argmax(1) == y)

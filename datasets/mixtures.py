"""Gaussian mixtures: data whose density and score are known at every time.

With a standard deviation of zero a mixture is the empirical distribution of its means. The score of
images taken so is that of the ideal network on a real data set: it shows a solver's error without
the error of training.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from parameterization import Process, ScoreFn
from sde_lib import SDE, expand
from shapes import Scalar, Time


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Equal parts of N(mean, std^2 I), for `means` [components, dim]."""

    means: Float[Array | np.ndarray, 'components dim']
    std: float

    def sample(self, key: Key[Array, ''], num: int) -> Float[Array, 'num dim']:
        """Draws from the data."""
        key_part, key_noise = jax.random.split(key)
        part = jax.random.randint(key_part, (num,), 0, len(self.means))
        noise = jax.random.normal(key_noise, (num, self.means.shape[1]))
        return self.means[part] + self.std * noise

    def log_prob(
        self, x: Float[Array, 'batch dim'], sde: SDE, t: Float[Array, '']
    ) -> Float[Array, 'batch']:
        """log p_t(x), in nats."""
        return self._log_prob(x, sde.alpha(t), self._variance(sde, t))

    def blurred_log_prob(
        self, x: Float[Array, 'batch dim'], noise_std: float
    ) -> Float[Array, 'batch']:
        """The log-density of draws with noise of this standard deviation, in nats."""
        return self._log_prob(x, jnp.float32(1), jnp.float32(self.std**2 + noise_std**2))

    def _log_prob(self, x: Array, alpha: Scalar, variance: Scalar) -> Float[Array, 'batch']:
        squares = jnp.sum((x[:, None] - alpha * self.means) ** 2, axis=-1)
        log_parts = -0.5 * squares / variance - 0.5 * x.shape[1] * jnp.log(2 * math.pi * variance)
        return jax.scipy.special.logsumexp(log_parts, axis=1) - math.log(len(self.means))

    def score_fn(self, sde: SDE) -> ScoreFn:
        """The exact `score_fn(x, t)` of states of any shape with `dim` values."""

        def score_fn(x, t):
            flat = x.reshape(len(x), -1)
            alpha, variance = expand(sde.alpha(t), flat), expand(self._variance(sde, t), flat)
            # log p(component | x) but for a constant: |x|^2 is common to all.
            squares = jnp.sum(self.means**2, axis=1)
            logits = alpha * (flat @ self.means.T - 0.5 * alpha * squares) / variance
            mean = jax.nn.softmax(logits, axis=1) @ self.means
            return ((alpha * mean - flat) / variance).reshape(x.shape)

        return score_fn

    def process(self, sde: SDE) -> Process:
        """The SDE with the exact score."""
        return Process(sde, self.score_fn(sde))

    def _variance(self, sde: SDE, t: Time) -> Time:
        return (sde.alpha(t) * self.std) ** 2 + sde.sigma(t) ** 2

"""A Gaussian mixture: data with a known density and score at every time."""

import dataclasses

import jax
import jax.numpy as jnp

from sde_lib import SDE


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Equal parts of N(mean_k, std^2 I), means [components, dim]."""

    means: jax.Array
    std: float

    def sample(self, key, num):
        """Draws [num, dim]."""
        key_part, key_noise = jax.random.split(key)
        part = jax.random.randint(key_part, (num,), 0, len(self.means))
        noise = jax.random.normal(key_noise, (num, self.means.shape[1]))
        return self.means[part] + self.std * noise

    def log_prob(self, x, sde: SDE, t):
        """log p_t(x), [batch]; t is a scalar."""
        alpha, variance = sde.alpha(t), (sde.alpha(t) * self.std) ** 2 + sde.sigma(t) ** 2
        squares = jnp.sum((x[:, None] - alpha * self.means) ** 2, axis=-1)
        log_parts = -0.5 * squares / variance - 0.5 * x.shape[1] * jnp.log(2 * jnp.pi * variance)
        return jax.scipy.special.logsumexp(log_parts, axis=1) - jnp.log(len(self.means))

    def score_fn(self, sde: SDE):
        """The exact `score_fn(x, t)`, t [batch]."""

        def log_prob(x, t):
            return self.log_prob(x[None], sde, t)[0]

        return jax.vmap(jax.grad(log_prob))


def example(dim: int = 2) -> Mixture:
    """Three components around the origin, of unequal distances."""
    means = jax.random.normal(jax.random.key(7), (3, dim))
    return Mixture(means - means.mean(axis=0), 0.3)

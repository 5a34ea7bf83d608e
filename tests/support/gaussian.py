"""Gaussian data in the shape of images, of which scores and posteriors are known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from parameterization import Process
from sde_lib import expand

SHAPE = (2, 2, 1)


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """N(mean, covariance) of images of SHAPE, as vectors."""

    mean: Float[np.ndarray, 'dim']
    covariance: Float[np.ndarray, 'dim dim']

    def score_fn(self, sde):
        """The exact score, in the basis of the covariance's eigenvectors."""
        variances, basis = np.linalg.eigh(self.covariance)

        def score_fn(x, t):
            flat = x.reshape(len(x), -1)
            alpha, sigma = expand(sde.alpha(t), flat), expand(sde.sigma(t), flat)
            centred = (flat - alpha * self.mean.astype(x.dtype)) @ basis.astype(x.dtype)
            scaled = -centred / (alpha**2 * variances.astype(x.dtype) + sigma**2)
            return (scaled @ basis.T.astype(x.dtype)).reshape(x.shape)

        return score_fn

    def process(self, sde):
        """The SDE with the exact score."""
        return Process(sde, self.score_fn(sde))

    def posterior(self, a, y, noise_std):
        """Mean and covariance given y = a x + noise, for a matrix `a`."""
        gain = self.covariance @ a.T
        gain = gain @ np.linalg.inv(a @ self.covariance @ a.T + noise_std**2 * np.eye(len(a)))
        mean = self.mean + gain @ (y - a @ self.mean)
        return mean, self.covariance - gain @ a @ self.covariance


def isotropic(std=0.5):
    """Of equal variances."""
    return Gaussian(np.array([0.3, -0.2, 0.1, 0.4]), std**2 * np.eye(4))


def correlated():
    """Neighbouring pixels correlated by 0.8, and those across by 0.64; standard deviation 0.5."""
    pair = np.array([[1, 0.8], [0.8, 1]])
    return Gaussian(np.array([0.3, -0.2, 0.1, 0.4]), 0.25 * np.kron(pair, pair))


def dense(measurement):
    """The matrix of a measurement of images of SHAPE."""
    units = jnp.eye(4).reshape(4, *SHAPE)
    return np.asarray(measurement.measure(units), np.float64).reshape(4, -1).T

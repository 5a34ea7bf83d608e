"""How wrong solutions are: on the centres of the cells of a grid four times as fine as that of
training, against the truth, in float64 from what a network says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from equations.training import Training

# Points that are evaluated at once, so that the activations of many networks fit in memory.
CHUNK = 4096


def mean_squared(training: Training, params: Any) -> Float[np.ndarray, 'networks']:
    """The mean squared error of each network: parameters with a leading axis."""
    z = training.problem.finer_grid(training.shape)
    found = evaluated(training, params, z)
    return ((found - training.problem.truth(z)[:, None]) ** 2).mean(axis=(0, 2))


def evaluated(
    training: Training, params: Any, z: Float[np.ndarray, 'points dim']
) -> Float[np.ndarray, 'points networks outputs']:
    """What networks say at points."""

    @jax.jit
    def of_chunk(params, z):
        return jax.vmap(lambda one: training.solution(one)(z), out_axes=1)(params)

    parts = np.array_split(z, max(1, len(z) // CHUNK))
    dtype = training.network.dtype
    return np.concatenate([np.asarray(of_chunk(params, jnp.asarray(p, dtype))) for p in parts])

"""A residual multi-layer perceptron of tanh layers, for functions of a few numbers: solutions of
differential equations, and the discriminator of their residuals.

It is initialised as PyTorch initialises linear layers: weights and biases are uniform between
-1 / sqrt(inputs) and 1 / sqrt(inputs).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

# Power iterations in an application of a network with spectral normalisation.
POWER_ITERATIONS = 3
STATISTICS = 'batch_stats'  # flax's name for what is kept of these iterations


class TanhMLP(nn.Module):
    """`network.apply(variables, z)` is an array [points, outputs], of points z [points, dim]:

        linear, tanh, then `blocks` times x -> tanh(W2 tanh(W1 x) + x), linear.

    `spectral` divides every matrix by its largest singular value (Miyato et al. 2018), as far as
    three power iterations an application find it; singular vectors are the variables STATISTICS,
    which are to be passed on: `apply(..., mutable=[STATISTICS])`. Biases stay as they are.
    """

    units: int
    blocks: int
    outputs: int = 1
    spectral: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, 'points dim']) -> Float[Array, 'points outputs']:
        h = jnp.tanh(self._linear(z, self.units))
        for _ in range(self.blocks):
            inner = jnp.tanh(self._linear(h, self.units))
            h = jnp.tanh(self._linear(inner, self.units) + h)
        return self._linear(h, self.outputs)

    def _linear(self, x: Array, features: int) -> Array:
        """A linear layer."""
        bound = x.shape[-1] ** -0.5

        def uniform(key, shape, dtype):
            return nn.initializers.uniform(2 * bound)(key, shape, dtype) - bound

        layer = nn.Dense(
            features,
            kernel_init=uniform,
            bias_init=uniform,
            dtype=self.dtype,
            param_dtype=self.dtype,
        )
        if not self.spectral:
            return layer(x)
        normalised = nn.SpectralNorm(layer, n_steps=POWER_ITERATIONS, param_dtype=self.dtype)
        return normalised(x, update_stats=True)

"""A classifier whose function does not change with the length of its parameters: a multi-layer
perceptron with normalised layers and a fixed last one.

    body   dense without bias, brought to mean 0 and variance 1 over its features, ReLU; again
    head   products with fixed vectors, one a class

So the loss L(x) of its parameters x has L(c x) = L(x), and x . grad L = 0: of training it is known
how weight decay and the noise of gradients settle the length of x (gradient_noise/equilibrium.py).
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from choices import ArgumentError, Range, check_options, option
from models.convolution import Image
from models.layers import (
    DTYPES,
    FEW,
    POSITIVE,
    WIDTH,
    dtype_option,
    in_precision,
    precision_option,
    recomputing,
    remat_option,
)

Features = Float[Array, 'batch features']
Logits = Float[Array, 'batch classes']

EPSILON = 1e-6  # in units of the variance of a layer's output; small, for it depends on the length


class NormalisedMLP(nn.Module):
    """The network: `model.apply({'params': params}, x, sigmas)` are float32 logits of the classes.

    It is not told how noisy images are: `sigmas` are what other classifiers have, and there is no
    dropout that `train` would switch on.
    """

    width: int = option(32, 'features of every layer, above the number of classes', WIDTH)
    num_layers: int = option(2, 'layers before the last, which is fixed', FEW)
    num_classes: int = option(10, 'classes that are told apart', Range(1, 10**6))
    head_scale: float = option(
        2.0, 'length of the vectors of classes, with which features make logits', POSITIVE
    )
    dtype: str = dtype_option()
    precision: str = precision_option()
    remat: bool = remat_option()

    def __post_init__(self):
        check_options(self)
        super().__post_init__()

    def plan(self, height: int, width: int) -> None:
        """Any size goes; raises ArgumentError for more classes than orthogonal vectors."""
        if self.num_classes >= self.width:
            raise ArgumentError(
                'width', f'{self.width}; more than the {self.num_classes} classes needed'
            )

    @nn.compact
    @in_precision
    def __call__(
        self, x: Image, sigmas: Float[Array, 'batch'] | None = None, train: bool = False
    ) -> Logits:
        layer, dtype = recomputing(NormalisedLayer, self.remat), DTYPES[self.dtype]
        h = x.reshape(len(x), -1).astype(dtype)
        for _ in range(self.num_layers):
            h = layer(self.width, dtype)(h)
        # For those who compare images by it; without mutable=['features'] it goes nowhere.
        self.sow('features', 'pooled', h.astype(jnp.float32))
        vectors = self.head_scale * class_vectors(self.width, self.num_classes)
        return (h @ vectors.astype(dtype)).astype(jnp.float32)


class NormalisedLayer(nn.Module):
    """relu((y - mean) / sqrt(var + epsilon)) of y = W x, with moments over the features."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, 'batch inputs']) -> Features:
        y = nn.Dense(self.features, use_bias=False, dtype=self.dtype)(x).astype(jnp.float32)
        y = y - y.mean(1, keepdims=True)
        variance = jnp.square(y).mean(1, keepdims=True)
        return nn.relu(y * lax.rsqrt(variance + EPSILON)).astype(self.dtype)


def class_vectors(width: int, num_classes: int) -> Float[Array, 'features classes']:
    """Orthonormal vectors whose numbers have mean 0: cosines of rising frequency (DCT-II).

    A formula, and not random numbers: it is no parameter, and a checkpoint of any age needs the
    same.
    """
    angles = np.pi / width * np.outer(np.arange(width) + 0.5, np.arange(1, num_classes + 1))
    return jnp.asarray(math.sqrt(2 / width) * np.cos(angles), jnp.float32)

"""Dropout with the masks of flax's, in one pass over an array.

On a CPU, JAX makes random bits in loops of passes over arrays, of which every layer has its own to
compile. Here the hash is written out, and becomes part of what XLA makes of the layer.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key, UInt32

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


class Dropout(nn.Module):
    """Each value is zero with probability `rate`, or else over 1 - rate; needs a key 'dropout'."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, '...'], train: bool) -> Float[Array, '...']:
        if not train or self.rate == 0:
            return x
        keep = 1 - self.rate
        # JAX's uniform numbers have the upper 23 bits.
        threshold = np.uint32(np.ceil(np.float32(keep) * 2**23))
        kept = random_bits(self.make_rng('dropout'), x.shape) >> 9 < threshold
        # `where` would keep zeros for the gradient too.
        return lax.select(kept, x / keep, jnp.zeros_like(x))


@functools.partial(jax.jit, static_argnames='shape')
def random_bits(key: Key[Array, ''], shape: tuple[int, ...]) -> UInt32[Array, '...']:
    """`jax.random.bits(key, shape)` of less than 2^32 values.

    That is, for JAX's default generator, threefry2x32 of 20 rounds (Salmon et al. 2011) of the
    number of each value, both words of which are combined.
    """
    if jax.random.key_impl(key) != 'threefry2x32':
        return jax.random.bits(key, shape)
    strides = np.cumprod((1, *shape[:0:-1]), dtype=np.uint32)[::-1]
    indices = (lax.broadcasted_iota(np.uint32, shape, axis) for axis in range(len(shape)))
    numbers = sum((i * n for i, n in zip(indices, strides, strict=False)), np.uint32(0))
    high, low = _threefry(*jax.random.key_data(key), np.uint32(0), numbers)
    return high ^ low


def _threefry(key_0, key_1, high, low):
    keys = key_0, key_1, key_0 ^ key_1 ^ np.uint32(0x1BD11BDA)
    high, low = high + keys[0], low + keys[1]
    for i in range(5):
        for rotation in ROTATIONS[i % 2]:
            high = high + low
            low = high ^ (low << np.uint32(rotation) | low >> np.uint32(32 - rotation))
        high, low = high + keys[(i + 1) % 3], low + keys[(i + 2) % 3] + np.uint32(i + 1)
    return high, low

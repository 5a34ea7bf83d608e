"""Randomness per image: what is drawn for an image does not depend on the batch it is in."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def per_image(key: Key[Array, ''], num: int) -> Key[Array, 'num']:
    """A key for each image, that depends on the image's index and not on `num`."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num))


def normal(
    image_keys: Key[Array, 'batch'], draw: int | Int[Array, ''], shape: tuple[int, ...]
) -> Float[Array, 'batch *shape']:
    """Standard normal noise of `shape` for each image: the draw of that number."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, draw), shape))(image_keys)

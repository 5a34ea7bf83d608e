"""Randomness per image: what is drawn for an image does not depend on the batch it is in."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from shapes import ImageKeys, OneKey


def of_images(key: OneKey, indices: Int[Array, 'num']) -> Key[Array, 'num']:
    """The keys of the images with these indices: the same in every batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


def per_image(key: OneKey, num: int) -> Key[Array, 'num']:
    """The keys of images 0 to num - 1."""
    return of_images(key, jnp.arange(num))


def fold_in(image_keys: ImageKeys, draw: int | Int[Array, '']) -> ImageKeys:
    """Each image's key for the draw of that number."""
    return jax.vmap(jax.random.fold_in, (0, None))(image_keys, draw)


def split(image_keys: ImageKeys, num: int) -> Key[Array, 'num batch']:
    """Each image's key split: one key of every image for each of `num` purposes."""
    return jax.vmap(lambda key: jax.random.split(key, num), out_axes=1)(image_keys)


def normal(
    image_keys: ImageKeys, draw: int | Int[Array, ''], shape: tuple[int, ...]
) -> Float[Array, 'batch *shape']:
    """Standard normal noise of `shape` for each image: the draw of that number."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, draw), shape))(image_keys)

"""Images between the 8 bits that files hold and the floats that networks see.

A pixel value v = 0..255 stands for the bin [v/256, (v+1)/256) of the unit interval, which is scaled
to [-1, 1] if the data are `centered`. Uniform noise over the bin (dequantisation) makes a density
on the bins a bound on the probability of the values (Theis et al. 2016).
"""

import jax
import jax.numpy as jnp

from shapes import Floats, ImageKeys, OneKey, Pixels


def augment(
    key: OneKey, images: Pixels, *, random_flip: bool, dequantized: bool, centered: bool
) -> Floats:
    """Training data: mirrored with probability 1/2, dequantised, each if asked for, and scaled."""
    key_flip, key_noise = jax.random.split(key)
    if random_flip:
        images = mirror(key_flip, images)
    return dequantize(key_noise, images, centered) if dequantized else to_float(images, centered)


def mirror(key: OneKey, images: Pixels) -> Pixels:
    """Images, half of them mirrored."""
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def binarize(key: OneKey, images: Pixels) -> Pixels:
    """Values 0 and 255 alone: 255 with probability v / 255, pixel by pixel (Salakhutdinov and
    Murray 2008).
    """
    is_on = jax.random.bernoulli(key, images / jnp.float32(255))
    return jnp.where(is_on, 255, 0).astype(jnp.uint8)


def binarize_each(image_keys: ImageKeys, images: Pixels) -> Pixels:
    """Values 0 and 255 alone, those of an image from its own key."""
    return jax.vmap(lambda key, image: binarize(key, image[None])[0])(image_keys, images)


def dequantize(key: OneKey, images: Pixels, centered: bool) -> Floats:
    """Images with uniform noise over their bins, scaled."""
    noise = jax.random.uniform(key, images.shape)
    return _scale((images + noise) / 256, centered)


def dequantize_each(image_keys: ImageKeys, images: Pixels, centered: bool) -> Floats:
    """Images with uniform noise over their bins, scaled; that of an image is from its own key."""
    return jax.vmap(lambda key, image: dequantize(key, image[None], centered)[0])(
        image_keys, images
    )


def to_float(images: Pixels, centered: bool) -> Floats:
    """Images without noise, scaled so that 0 and 255 are the ends of the range."""
    return _scale(images / jnp.float32(255), centered)


def to_uint8(x: Floats, centered: bool) -> Pixels:
    """The 8-bit values in whose bins `x` lies; what is out of range is clipped."""
    unit = 0.5 * (x + 1) if centered else x
    return jnp.clip(jnp.floor(unit * 256), 0, 255).astype(jnp.uint8)


def bin_width(centered: bool) -> float:
    """Width of the bin of one 8-bit value, in the range that networks see."""
    return (2 if centered else 1) / 256


def _scale(unit: Floats, centered: bool) -> Floats:
    return 2 * unit - 1 if centered else unit

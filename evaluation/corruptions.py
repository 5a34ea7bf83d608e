"""Common corruptions of images, in five strengths (after Hendrycks and Dietterich 2019,
arXiv:1903.12261).

They are made of 8-bit images, as files would be. Noise is a function of a seed and an image's
number; nothing else is random.
"""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from choices import choose
from shapes import HostPixels

STRENGTHS = 1, 2, 3, 4, 5
# One image, and what is random of it.
OneImage = UInt8[np.ndarray, 'height width channels']


def corrupt(pixels: HostPixels, name: str, strength: int, seed: int) -> HostPixels:
    """Images with a corruption of CORRUPTIONS of one of STRENGTHS; ArgumentError for others."""
    change = choose(CORRUPTIONS, name, 'name')
    rngs = (np.random.default_rng([seed, i]) for i in range(len(pixels)))
    return np.stack([change(x, strength - 1, rng) for x, rng in zip(pixels, rngs, strict=True)])


def noise(x: OneImage, i: int, rng: np.random.Generator) -> OneImage:
    """Gaussian noise of a standard deviation of 0.08 to 0.38, of pixels from 0 to 1."""
    std = 255 * (0.08, 0.12, 0.18, 0.26, 0.38)[i]
    return _in_8_bits(x + std * rng.standard_normal(x.shape))


def blur(x: OneImage, i: int, rng: np.random.Generator) -> OneImage:
    """A Gaussian of 0.5 to 2.5 pixels."""
    return _by_pillow(lambda image: image.filter(ImageFilter.GaussianBlur((1 + i) / 2)), x)


def contrast(x: OneImage, i: int, rng: np.random.Generator) -> OneImage:
    """What differs from the mean of each channel, times 0.4 to 0.05."""
    mean = x.mean((0, 1))
    return _in_8_bits(mean + (0.4, 0.3, 0.2, 0.1, 0.05)[i] * (x - mean))


def pixelate(x: OneImage, i: int, rng: np.random.Generator) -> OneImage:
    """0.6 to 0.25 times as many pixels in height and width, made large again."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[i]
    size = x.shape[1], x.shape[0]
    small = [max(1, round(share * side)) for side in size]

    def change(image):
        reduced = image.resize(small, Image.Resampling.BOX)
        return reduced.resize(size, Image.Resampling.NEAREST)

    return _by_pillow(change, x)


def jpeg(x: OneImage, i: int, rng: np.random.Generator) -> OneImage:
    """JPEG of a quality of 25 to 7."""

    def change(image):
        with io.BytesIO() as file:
            image.save(file, 'JPEG', quality=(25, 18, 15, 10, 7)[i])
            return Image.open(io.BytesIO(file.getvalue()))

    return _by_pillow(change, x)


def _in_8_bits(x: np.ndarray) -> OneImage:
    return np.clip(np.round(x), 0, 255).astype(np.uint8)


def _by_pillow(change: Callable[[Image.Image], Image.Image], x: OneImage) -> OneImage:
    image = Image.fromarray(x[..., 0] if x.shape[2] == 1 else x)
    return np.asarray(change(image)).reshape(x.shape)


CORRUPTIONS = {
    'noise': noise,
    'blur': blur,
    'contrast': contrast,
    'pixelate': pixelate,
    'jpeg': jpeg,
}

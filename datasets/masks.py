"""Masks from image files: which pixels are known."""

import os

import numpy as np
from jaxtyping import Bool, UInt8

from datasets import image_files, sizes
from datasets.stored import DataError

# From this value on a pixel is white, and a transparent one is not.
THRESHOLD = 128
# A drawing is of black and white alone, but for the greys of its edges.
EDGES, NEAR = 0.05, 8


def load(path: str, image_size: tuple[int, int]) -> Bool[np.ndarray, 'height width']:
    """Where a mask knows an image: where it is white, or where a picture is not transparent.

    What is transparent is unknown. Of a file with transparent parts the rest is known if it is a
    picture, and white if it is drawn in black and white. What is decided by a threshold, or by
    this, is said in a line.

    Raises DataError unless the file is an image of this size.
    """
    path = os.path.expanduser(path)
    image = image_files.decode(path)
    height, width = image_size
    if image.size != (width, height):
        raise DataError(
            f'{path} has {image.height}x{image.width} pixels; {height}x{width} needed, as '
            'data.image_size'
        )
    grey, alpha = _grey_and_alpha(image)
    opaque = alpha >= THRESHOLD
    if opaque.all() or _is_drawn(grey[opaque]):
        _tell_of_greys(path, grey[opaque], 'white')
        return opaque & (grey >= THRESHOLD)
    print(f'{path}: a picture; what is transparent is unknown, and all else known', flush=True)
    _tell_of_greys(path, alpha, 'opaque')
    return opaque


def _grey_and_alpha(image) -> tuple[UInt8[np.ndarray, 'h w'], UInt8[np.ndarray, 'h w']]:
    image = sizes.in_8_bits(image)
    if not image.has_transparency_data:
        grey = np.asarray(image.convert('L'))
        return grey, np.full_like(grey, 255)
    image = image.convert('RGBA')
    return np.asarray(image.convert('RGB').convert('L')), np.asarray(image.getchannel('A'))


def _is_drawn(values: UInt8[np.ndarray, 'n']) -> bool:
    return _is_grey(values).sum() <= EDGES * values.size


def _is_grey(values: UInt8[np.ndarray, '*shape']) -> Bool[np.ndarray, '*shape']:
    return (values >= NEAR) & (values <= 255 - NEAR)


def _tell_of_greys(path: str, values: UInt8[np.ndarray, '*shape'], known: str) -> None:
    num = int(_is_grey(values).sum())
    if num:
        between = 'grey' if known == 'white' else 'half transparent'
        print(
            f'{path}: {num:,} of {values.size:,} pixels are {between}; those from {THRESHOLD} on '
            f'are taken for {known}, and so are known',
            flush=True,
        )

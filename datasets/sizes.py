"""Images of any size and mode as arrays of one shape: crops, scaling, channels.

Pillow is imported where an image needs it: arrays that have their shape already do without.
"""

import numpy as np
from jaxtyping import UInt8

# That an image file may have: 16,384 x 16,384 take a gigabyte while they are decoded.
MAX_PIXELS = 2**28


def conform(
    image, shape: tuple[int, int, int], fit: str, crop_size: int | None = None
) -> UInt8[np.ndarray, 'h w c']:
    """An array or a Pillow image, of any size and mode, as an array of the given shape."""
    from PIL import Image

    if isinstance(image, np.ndarray):
        if image.shape == shape and crop_size is None:
            return image
        image = Image.fromarray(image.squeeze(-1) if image.shape[2:] == (1,) else image)
    height, width, channels = shape
    image = _with_channels(image, channels)
    if crop_size is not None:
        image = _centre(image, crop_size)
    if image.size != (width, height):
        image = FITS[fit](image, (width, height))
    return np.asarray(image).reshape(shape)


def _centre(image, size: int):
    """The square of this side in the middle, or what the image has of it."""
    width, height = (min(size, side) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def in_8_bits(image):
    """A Pillow image of 8 bits, with the transparency of one of 16 bits."""
    from PIL import Image

    if not image.mode.startswith('I'):
        return image
    pixels = np.asarray(image)
    # Pillow's own conversion would clip at 255.
    grey = Image.fromarray((pixels >> 8).astype(np.uint8))
    key = image.info.get('transparency')
    if key is None:
        return grey
    alpha = Image.fromarray(np.where(pixels == key, 0, 255).astype(np.uint8))
    return Image.merge('LA', (grey, alpha))


def _with_channels(image, channels: int):
    from PIL import Image

    image = in_8_bits(image)
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return image.convert('L' if channels == 1 else 'RGB')


def _crop(image, size):
    """Scales until both sides reach `size` = (width, height), and cuts the centre out."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def _squash(image, size):
    """Scales both sides to `size`, whatever becomes of the aspect."""
    from PIL import Image

    return image.resize(size, Image.Resampling.BICUBIC)


def _pad(image, size):
    """Scales until one side reaches `size`, and puts the rest in black."""
    from PIL import Image, ImageOps

    return ImageOps.pad(image, size, Image.Resampling.BICUBIC)


FITS = {'crop': _crop, 'squash': _squash, 'pad': _pad}

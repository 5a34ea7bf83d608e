"""Images as files for people: sheets of many, enlarged."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from storage import files

MOST_IMAGES, MOST_PIXELS = 256, 2**24  # of a sheet
MIN_SIDE = 512  # of a file, about
# Of captions, in pixels: the least width of an image that has one, and the text.
CAPTION_WIDTH, CAPTION_HEIGHT, CAPTION_SIZE = 64, 18, 13


def most(shape: tuple[int, int, int, int]) -> int:
    """How many images [.., height, width, ..] a sheet has room for."""
    _, height, width, _ = shape
    return min(MOST_IMAGES, max(1, MOST_PIXELS // (height * width)))


def absent(shape: tuple[int, int, int]) -> UInt8[np.ndarray, 'h w c']:
    """What stands for an image that there is not: a cross on grey."""
    height, width, _ = shape
    rows, columns = np.indices((height, width))
    across, down = columns / max(width - 1, 1), rows / max(height - 1, 1)
    line = 1 / min(height, width)
    is_cross = (abs(across - down) < line) | (abs(across + down - 1) < line)
    return np.where(is_cross, 255, 128)[..., None].astype(np.uint8).repeat(shape[2], axis=2)


def grid(images: UInt8[np.ndarray, 'n h w c'], columns: int | None = None) -> np.ndarray:
    """One image with all of them, row by row, in a square of nearly as many rows as columns."""
    n, h, w, c = images.shape
    rows, columns = _places(n, columns)
    sheet = np.full((rows * (h + 1) - 1, columns * (w + 1) - 1, c), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (h + 1), i % columns * (w + 1)
        sheet[top : top + h, left : left + w] = image
    return sheet


def captioned(
    images: UInt8[np.ndarray, 'n h w c'], captions: Sequence[str], columns: int | None = None
) -> np.ndarray:
    """A `grid` with text above as many of the first images as there are captions.

    Images are enlarged, as `save_png` does it, so that text of its own size stands beside them.
    """
    n, h, w, _ = images.shape
    rows, columns = _places(n, columns)
    factor = max(_factor(rows * h, columns * w), round(CAPTION_WIDTH / w))
    images, w = _enlarged(images, factor), w * factor
    parts = []
    for first in range(0, n, columns):
        row = range(first, first + columns)
        parts += [_captions([*captions[first : row.stop]], w, columns, images.shape[3])]
        parts += [grid(images[first : row.stop], columns)]
    return np.concatenate(parts)


def _captions(texts: Sequence[str], width: int, columns: int, channels: int) -> np.ndarray:
    """A strip of texts, one above each column; without any it is a line between rows."""
    height = CAPTION_HEIGHT if texts else 1
    strip = Image.new('L', (columns * (width + 1) - 1, height), 255)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(CAPTION_SIZE)
    for i, text in enumerate(texts):
        draw.text((i * (width + 1) + 1, 1), _cut(text, draw, font, width - 2), fill=0, font=font)
    return np.asarray(strip)[..., None].repeat(channels, axis=2)


def _cut(text: str, draw: ImageDraw.ImageDraw, font, width: int) -> str:
    """As much of a text as is no wider."""
    lengths = range(len(text), 0, -1)
    cuts = (text if n == len(text) else f'{text[:n]}…' for n in lengths)
    return next((cut for cut in cuts if draw.textlength(cut, font) <= width), '')


def _places(num: int, columns: int | None) -> tuple[int, int]:
    """Rows and columns of a sheet; nearly as many of both, unless it is said how many columns."""
    columns = columns or math.ceil(math.sqrt(num))
    return math.ceil(num / columns), columns


def save_png(
    path: pathlib.Path, image: UInt8[np.ndarray, 'h w c'], min_side: int = MIN_SIDE
) -> None:
    """Writes an image, each pixel enlarged until the shorter side has about `min_side`."""
    pixels = _enlarged(image[None], _factor(*image.shape[:2], min_side))[0]
    with files.replacing(path) as draft:
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(draft)


def _factor(height: int, width: int, min_side: int = MIN_SIDE) -> int:
    return max(1, round(min_side / min(height, width)))


def _enlarged(images: UInt8[np.ndarray, 'n h w c'], factor: int) -> UInt8[np.ndarray, 'n h w c']:
    """Images of which each pixel is a square of so many."""
    return images.repeat(factor, 1).repeat(factor, 2)

"""Images as files for people: sheets of many, enlarged."""

import math
import pathlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from storage import files

MOST_IMAGES, MOST_PIXELS = 256, 2**24  # of a sheet


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
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (h + 1) - 1, columns * (w + 1) - 1, c), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (h + 1), i % columns * (w + 1)
        sheet[top : top + h, left : left + w] = image
    return sheet


def save_png(path: pathlib.Path, image: UInt8[np.ndarray, 'h w c'], min_side: int = 512) -> None:
    """Writes an image, each pixel enlarged until the shorter side has about `min_side`."""
    factor = max(1, round(min_side / min(image.shape[:2])))
    pixels = image.repeat(factor, 0).repeat(factor, 1)
    with files.replacing(path) as draft:
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(draft)

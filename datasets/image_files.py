"""Files with images: decoding one, and finding those that cannot be before any is needed."""

import contextlib
import functools
import math
import os
import struct
import threading
import zlib
from typing import Any, NamedTuple

import numpy as np

from datasets import identity, threads
from datasets.sizes import MAX_PIXELS
from datasets.stored import NO_LABEL, DataError, Stored

EXTENSIONS = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
# Up to this size a folder is decoded when it is found, to find broken files: a few seconds.
VERIFY_BYTES = 32 * 2**20
VERIFY_PIXELS = 2**28
# Larger images are decoded one at a time: as many as there are threads would fill the memory.
LARGE_PIXELS = 2**26
# What Pillow raises for a file that is something else, or only half of one.
BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
# Modes of Pillow that become grey or colour; those of 16 bits begin with I;16. Not among them: F,
# since floats have no range, and LAB, which Pillow does not convert.
MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBX', 'RGBA', 'RGBa', 'CMYK', 'YCbCr', 'HSV')

_one_large = threading.Lock()


class ImageFile(NamedTuple):
    """A file where it was found.

    `name` is its path below the folder of the source, the same on every system; `names` are the
    parts of it from a class or the file on, as far as the layout is known; `size` is -1 if there is
    no such file; `written` is when, and `identity` the same for all links to it.
    """

    path: str
    name: str
    names: tuple[str, ...]
    size: int
    written: int
    identity: Any


def pillow():
    """Pillow's module Image, without its limit of pixels: `data.max_pixels` is in its place."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    return Image


# Decoding


def decode(file: str, max_pixels: int = MAX_PIXELS):
    """A file as a Pillow image, upright if the camera wrote how it was held.

    Raises DataError if it is no image, or one that `check_header` refuses.
    """
    from PIL import ImageOps

    try:
        with pillow().open(file) as image:
            check_header(file, image, max_pixels)
            large = math.prod(image.size) > LARGE_PIXELS
            with _one_large if large else contextlib.nullcontext():
                key = _key(image)
                image.load()
                if key is not None:
                    image.info['transparency'] = key
                return ImageOps.exif_transpose(image)
    except BROKEN_IMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f'{file} is not an image that can be decoded ({error})') from error


def check_header(file: str, image, max_pixels: int) -> None:
    """Raises DataError for an image, opened and not decoded, that has too many pixels, or a mode
    that does not become grey or colour."""
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(
            f'{file} has {height:,}x{width:,} pixels, {width * height:,}; at most '
            f'data.max_pixels = {max_pixels:,} allowed'
        )
    # Of older Pillows, PNGs of 16 bits have the mode of 32.
    known = image.mode.startswith('I;16') or (image.mode == 'I' and image.format == 'PNG')
    if not known and image.mode not in MODES:
        raise DataError(
            f'{file} is an image of mode {image.mode!r} ({image.format}), which does not become '
            'grey or colour; 8 or 16 bits of grey, RGB, CMYK, YCbCr or a palette needed'
        )


def _key(image) -> int | tuple[int, ...] | None:
    """The transparent colour of a PNG, in 8 bits as Pillow gives its pixels; None: as it is.

    Pillow scales samples of 2, 4 and 16 bits and not the colour that they are compared with.
    """
    key = image.info.get('transparency')
    if image.format != 'PNG' or key is None or not image.tile:
        return None
    raw_mode = image.tile[0][3]
    if raw_mode in ('L;2', 'L;4') and isinstance(key, int):
        return key * {'L;2': 85, 'L;4': 17}[raw_mode]
    if raw_mode == 'RGB;16B':
        return tuple(sample >> 8 for sample in key)
    return None


def stored_file(path: str, max_pixels: int = MAX_PIXELS) -> Stored:
    """One image, decoded when it is read."""
    path = os.path.expanduser(path)
    return Stored(
        read=lambda i: (decode(path, max_pixels), NO_LABEL),
        length=1,
        undivided=True,
        fingerprint=lambda chosen: identity.of_arrays(np.fromfile(path, np.uint8)),
        labels=lambda chosen: np.full(len(chosen), NO_LABEL),
        name=lambda i: path,
    )


# Finding what is broken


@functools.lru_cache(maxsize=1)  # Both splits of a folder are found among the same files.
def verify(files: tuple[ImageFile, ...], max_pixels: int) -> None:
    """Raises DataError if there are broken or unusable images, so that no run meets them after
    hours.

    The headers of all are read. Up to VERIFY_BYTES and VERIFY_PIXELS all are decoded; beyond, those
    that do not look whole. That finds empty and truncated files and other things with the name of
    an image, not a flaw amid a complete file.
    """
    pillow().init()  # Loads Pillow's plugins, before threads do so at the same time.
    found = threads.over(
        lambda file: _glance(file, max_pixels), files, 'checking images', at_once=100
    )
    problems = [problem for problem, _, _ in found if problem]
    num_pixels = sum(pixels for _, pixels, _ in found)
    is_small = sum(f.size for f in files) <= VERIFY_BYTES and num_pixels <= VERIFY_PIXELS
    doubtful = [
        file
        for file, (problem, _, is_whole) in zip(files, found, strict=True)
        if not problem and (is_small or not is_whole)
    ]
    decoded = threads.over(
        lambda file: _problem(file.path, max_pixels), doubtful, 'decoding images'
    )
    problems += [problem for problem in decoded if problem]
    if problems:
        others = f' (and {len(problems) - 1:,} other files)' if len(problems) > 1 else ''
        raise DataError(min(problems) + others)


def _glance(file: ImageFile, max_pixels: int) -> tuple[str | None, int, bool]:
    """What is wrong with a header, if anything; how many pixels it tells of; whether the file looks
    whole."""
    try:
        with pillow().open(file.path) as image:
            check_header(file.path, image, max_pixels)
            return None, math.prod(image.size), _looks_whole(file.path)
    except DataError as error:
        return str(error), 0, True
    except BROKEN_IMAGE:
        return None, 0, False


def _looks_whole(file: str) -> bool:
    """Whether a file starts and ends as PNG, JPEG, WebP or BMP do; two short reads."""
    try:
        with open(file, 'rb', buffering=0) as stream:
            head = stream.read(16)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 32))
            tail = stream.read()
    except OSError:
        return False
    if head.startswith(b'\x89PNG'):
        return b'IEND' in tail
    if head.startswith(b'\xff\xd8'):
        return b'\xff\xd9' in tail
    if head.startswith(b'RIFF'):
        return int.from_bytes(head[4:8], 'little') + 8 <= size
    return head.startswith(b'BM') and int.from_bytes(head[2:6], 'little') <= size


def _problem(path: str, max_pixels: int) -> str | None:
    try:
        decode(path, max_pixels)
    except DataError as error:
        return str(error)
    return None

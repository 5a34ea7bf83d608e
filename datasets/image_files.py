"""Files with images: decoding one, and finding those that cannot be before any is needed."""

import contextlib
import functools
import io
import math
import os
import struct
import threading
import zlib
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from datasets import identity, inventory, threads
from datasets.archives import Member
from datasets.inventory import Inventory, Size
from datasets.sizes import MAX_PIXELS
from datasets.stored import NO_LABEL, DataError, Stored

EXTENSIONS = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff', '.gif')
# Up to this size a folder is decoded when it is found, to find broken files: a few seconds.
VERIFY_BYTES = 32 * 2**20
VERIFY_PIXELS = 2**28
# Of an image in an archive so much is read for its header; of the ends of a file so much.
HEADER_BYTES, TAIL_BYTES = 2**16, 32
# Larger images are decoded one at a time: as many as there are threads would fill the memory.
LARGE_PIXELS = 2**26
# What Pillow raises for a file that is something else, or only half of one.
BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
# Modes of Pillow that become grey or colour; those of 16 bits begin with I;16. Not among them: F,
# since floats have no range, and LAB, which Pillow does not convert.
MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBX', 'RGBA', 'RGBa', 'CMYK', 'YCbCr', 'HSV')

# Tags of TIFF: where strips or tiles begin, and how long they are.
TIFF_PARTS = ((273, 279), (324, 325))

_one_large = threading.Lock()


class ImageFile(NamedTuple):
    """A file where it was found.

    `name` is its path below the folder of the source, the same on every system; `names` are the
    parts of it from a class or the file on, as far as the layout is known; `size` is -1 if there is
    no such file; `written` is when, and `identity` the same for all links to it. `member` is its
    place in an archive, if it is in one; `path` is then what it is called.
    """

    path: str
    name: str
    names: tuple[str, ...]
    size: int
    written: int
    identity: Any
    member: Member | None = None

    @property
    def is_image(self) -> bool:
        """Whether its name is that of an image."""
        return self.path.lower().endswith(EXTENSIONS)

    def open(self) -> BinaryIO:
        """Its content; OSError if it cannot be read."""
        if self.member is None:
            return open(self.path, 'rb')
        return io.BytesIO(self.member.read())

    def ends(self) -> tuple[bytes, bytes, int]:
        """Its first and last bytes, and how many it has; OSError if it cannot be read."""
        if self.member is not None:
            tail = self.member.read(max(0, self.size - TAIL_BYTES))
            return self.member.read(0, TAIL_BYTES), tail, self.size
        with open(self.path, 'rb', buffering=0) as stream:
            head = stream.read(TAIL_BYTES)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - TAIL_BYTES))
            return head, stream.read(), size


def pillow():
    """Pillow's module Image, without its limit of pixels: `data.max_pixels` is in its place."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    return Image


# Decoding


def decode(path: str, max_pixels: int = MAX_PIXELS, member: Member | None = None):
    """A file as a Pillow image, upright if the camera wrote how it was held: of several frames the
    first. `member` is its place in an archive, if it is in one.

    Raises DataError if it is no image, or one that `check_header` refuses.
    """
    from PIL import ImageOps

    try:
        with pillow().open(path if member is None else io.BytesIO(member.read())) as image:
            check_header(path, image, max_pixels)
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
        raise DataError(f'{path} is not an image that can be decoded ({_reason(error)})') from error


def _reason(error: Exception) -> str:
    """Pillow names a file of an unknown type by its object."""
    from PIL import UnidentifiedImageError

    return 'of no known type' if isinstance(error, UnidentifiedImageError) else str(error)


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
        inventory=Inventory(labels=lambda: np.full(1, NO_LABEL)),
    )


# Finding what is broken


@functools.lru_cache(maxsize=1)  # Both splits of a folder are found among the same files.
def verify(files: tuple[ImageFile, ...], max_pixels: int) -> tuple[Size, Size]:
    """The sizes, (height, width), of the smallest and of the largest image.

    Raises DataError if there are broken or unusable images, so that no run meets them after hours.

    The headers of all are read. Up to VERIFY_BYTES and VERIFY_PIXELS all are decoded; beyond, those
    that do not look whole. That finds empty and truncated files and other things with the name of
    an image, not a flaw amid a complete file.
    """
    pillow().init()  # Loads Pillow's plugins, before threads do so at the same time.
    found = threads.over(
        lambda file: _glance(file, max_pixels), files, 'checking images', at_once=100
    )
    problems = [seen.problem for seen in found if seen.problem]
    num_pixels = sum(math.prod(seen.size) for seen in found if seen.size)
    is_small = sum(f.size for f in files) <= VERIFY_BYTES and num_pixels <= VERIFY_PIXELS
    doubtful = [
        file
        for file, seen in zip(files, found, strict=True)
        if not seen.problem and (is_small or not seen.is_whole)
    ]
    decoded = threads.over(lambda file: _decoded(file, max_pixels), doubtful, 'decoding images')
    problems += [problem for problem, _ in decoded if problem]
    if problems:
        others = f' (and {len(problems) - 1:,} other files)' if len(problems) > 1 else ''
        raise DataError(min(problems) + others)
    sizes = [seen.size for seen in found] + [size for _, size in decoded]
    return inventory.extent(size for size in sizes if size)


class _Seen(NamedTuple):
    """What is wrong with a header, if anything; the size that it tells, if it can be read; whether
    the file looks whole."""

    problem: str | None
    size: Size | None
    is_whole: bool


def _glance(file: ImageFile, max_pixels: int) -> _Seen:
    try:
        header = file.member and io.BytesIO(file.member.read(0, HEADER_BYTES))
        with pillow().open(header or file.path) as image:
            check_header(file.path, image, max_pixels)
            return _Seen(None, (image.height, image.width), _looks_whole(file, image))
    except DataError as error:
        return _Seen(str(error), None, True)
    except BROKEN_IMAGE:
        return _Seen(None, None, False)


def _looks_whole(file: ImageFile, image) -> bool:
    """Whether a file starts and ends as images of its format do; two short reads."""
    try:
        head, tail, size = file.ends()
    except OSError:
        return False
    if head.startswith(b'\x89PNG'):
        return b'IEND' in tail
    if head.startswith(b'\xff\xd8'):
        return b'\xff\xd9' in tail
    if head.startswith(b'RIFF'):
        return int.from_bytes(head[4:8], 'little') + 8 <= size
    if head.startswith(b'GIF8'):
        return b';' in tail
    if image.format == 'TIFF':
        return _last_byte(image) <= size
    return head.startswith(b'BM') and int.from_bytes(head[2:6], 'little') <= size


def _last_byte(image) -> float:
    """Where the pixels of a TIFF image end, by its directory; infinity if it does not say."""
    for begins, lengths in TIFF_PARTS:
        if begins in image.tag_v2 and lengths in image.tag_v2:
            parts = zip(image.tag_v2[begins], image.tag_v2[lengths], strict=False)
            return max((begin + length for begin, length in parts), default=math.inf)
    return math.inf


def _decoded(file: ImageFile, max_pixels: int) -> tuple[str | None, Size | None]:
    """What is wrong with an image, if anything, and its size."""
    try:
        image = decode(file.path, max_pixels, file.member)
    except DataError as error:
        return str(error), None
    return None, (image.height, image.width)

"""Fingerprints of data: whether the images are those of another time.

They see much and not all, so that they take a second or two of any data: of files the names and
sizes of all, and the contents of many; of arrays all numbers, or those of every n-th image.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from typing import BinaryIO, Protocol

import numpy as np

from datasets import threads
from datasets.stored import Examples

# Arrays up to this size are looked at whole; of larger ones every n-th row, so that it is as much.
WHOLE_BYTES = 2**28
# Of so many files, evenly spread, the contents are looked at: all, or a beginning and an end.
FILES_READ = 4096
END_BYTES = 2**15
# Of data that are known only by reading them, so many examples, evenly spread, are looked at.
EXAMPLES_READ = 256


class File(Protocol):
    """A file, in a folder or in an archive, of which name and size are known."""

    name: str
    size: int

    def open(self) -> BinaryIO:
        """Its content."""


def fingerprint(examples: Examples) -> str:
    """Changes with the data: their own fingerprint, if they have one, or that of some of them."""
    own = getattr(examples, 'fingerprint', None)
    if own is not None:
        return own
    found = examples.gather(spread(len(examples), EXAMPLES_READ))
    return of_text(len(examples), of_arrays(*(found[name] for name in sorted(found))))


def of_text(*given: object) -> str:
    """Twenty hexadecimal digits that change with the text of any of these."""
    return _short(hashlib.sha256(repr([str(one) for one in given]).encode()))


def of_arrays(*arrays: np.ndarray) -> str:
    """Changes with any number of arrays up to WHOLE_BYTES, and with their shapes and types."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f'{array.dtype} {array.shape}'.encode())
        step = max(1, math.ceil(array.nbytes / WHOLE_BYTES))
        digest.update(np.ascontiguousarray(array[::step]).data)
    return _short(digest)


def of_files(files: Sequence[File]) -> str:
    """Changes with the order, a name or a size of files, and with the contents of FILES_READ.

    Of a file above two END_BYTES a change between its ends is not seen, if it keeps the size.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f'{file.name}\0{file.size}\n'.encode(errors='surrogateescape'))
    read = [files[i] for i in spread(len(files), FILES_READ)]
    for found in threads.over(_of_ends, read, 'looking into images', 100):
        digest.update(found)
    return _short(digest)


def spread(length: int, most: int) -> np.ndarray:
    """Up to `most` indices below `length`, evenly spread."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).astype(int))


def _of_ends(file: File) -> bytes:
    with file.open() as stream:
        found = stream.read(2 * END_BYTES)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(len(found), size - END_BYTES))
        return hashlib.sha256(found + stream.read()).digest()


def _short(digest) -> str:
    return digest.hexdigest()[:20]

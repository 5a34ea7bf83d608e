"""PyTorch's checkpoints from before version 1.6, as torch_zip.py reads later ones.

Such a file is a sequence: three pickles (a magic number, a version, the machine), the saved object
as a pickle that refers to storages by keys, a pickle with the list of these keys, and then, for
each, the number of its elements and their bytes.
"""

import pathlib
import pickle
import struct
from typing import Any, BinaryIO

import numpy as np

from choices import InputError
from published.torch_zip import BROKEN, StorageType, Unpickler

MAGIC = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
PICKLES_BEFORE = 3


def is_torch_legacy(path: pathlib.Path) -> bool:
    """Whether a file is of that format."""
    with path.open('rb') as file:
        return file.read(len(MAGIC)) == MAGIC


def load(path: pathlib.Path) -> Any:
    """What `torch.load` would give, with arrays for tensors and numbers for numpy scalars.

    Raises InputError if the file is broken, or names a function that a checkpoint does not need.
    """
    try:
        with path.open('rb') as file:
            return read(file, path.stat().st_size)
    except BROKEN as error:
        raise InputError(f'{path}: not a checkpoint that can be read safely: {error}') from error


def read(file: BinaryIO, num_bytes: int) -> Any:
    """What is in an open file of so many bytes; raises one of BROKEN if it cannot be read."""
    for _ in range(PICKLES_BEFORE):
        Unpickler(file, encoding='utf-8').load()
    reader = _Reader(file, num_bytes)
    saved = reader.load()
    for key in Unpickler(file, encoding='utf-8').load():
        _fill(file, reader.storages[key])
    return saved


class _Reader(Unpickler):
    """Makes storages, whose elements come later."""

    def __init__(self, file, num_bytes: int):
        super().__init__(file, encoding='utf-8')
        self.storages: dict[str, np.ndarray] = {}
        self._left = num_bytes

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage_type, key, _device, numel, view = pid
        if kind != 'storage' or not isinstance(storage_type, StorageType) or view is not None:
            raise pickle.UnpicklingError(f'it refers to {pid!r}')
        if key not in self.storages:
            # All storages are in the file: a small one must not become large arrays.
            self._left -= numel * storage_type.dtype.itemsize
            if numel < 0 or self._left < 0:
                raise pickle.UnpicklingError(f'a storage of {numel} elements in a smaller file')
            self.storages[key] = np.zeros(numel, storage_type.dtype)
        return self.storages[key]


def _fill(file, storage):
    """Reads the elements of a storage."""
    (numel,) = struct.unpack('<q', file.read(8))
    data = file.read(storage.nbytes)
    if numel != len(storage) or len(data) < storage.nbytes:
        raise pickle.UnpicklingError(f'{numel} elements, cut short, for {len(storage)}')
    storage[:] = np.frombuffer(data, storage.dtype)

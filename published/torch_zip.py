"""PyTorch's checkpoints as numpy arrays: without PyTorch, and without running what is in them.

A checkpoint is a zip file. Its member `data.pkl` is the saved object as a pickle, in which a tensor
is a call of `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)`; the bytes of
storage k are the member `data/k`.

A pickle is a program that may call any function it names, so a hostile file can do anything. Here
names are looked up in `ALLOWED` alone, which holds what checkpoints need and nothing that acts; a
file that names anything else is refused. `torch.load(weights_only=True)` protects itself in the
same way, but refuses the checkpoints of score_sde_pytorch: their learning rates are numpy scalars.
"""

import collections
import math
import pathlib
import pickle
import zipfile
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided

from choices import InputError

DTYPES = {
    'BFloat16Storage': ml_dtypes.bfloat16,
    'BoolStorage': np.bool_,
    'ByteStorage': np.uint8,
    'CharStorage': np.int8,
    'DoubleStorage': np.float64,
    'FloatStorage': np.float32,
    'HalfStorage': np.float16,
    'IntStorage': np.int32,
    'LongStorage': np.int64,
    'ShortStorage': np.int16,
}
MEMBER_HEADER = 30  # bytes before the name, whose length is in bytes 26 and 27
# What the loader raises for bytes that are no pickle, or one that misuses what it may name.
BROKEN = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


def check_whole(path: pathlib.Path) -> None:
    """Raises InputError for a zip file, PyTorch's or numpy's, that is cut short.

    The directory of a zip file is its end; each member begins with a header of its own.
    """
    with path.open('rb') as file:
        head = file.read(MEMBER_HEADER + 2**16)
    if not head.startswith(b'PK\3\4') or zipfile.is_zipfile(path):
        return
    name = head[MEMBER_HEADER : MEMBER_HEADER + int.from_bytes(head[26:28], 'little')]
    kind = 'an .npz file' if name.endswith(b'.npy') else 'a PyTorch zip file'
    size = path.stat().st_size
    raise InputError(f'{path}: {kind} that is cut short, after {size:,} bytes; copy it again')


def is_torch_zip(path: pathlib.Path) -> bool:
    """Whether a file is a zip of PyTorch's."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith('/data.pkl') for name in archive.namelist())


def load(path: pathlib.Path) -> Any:
    """What `torch.load` would give, with arrays for tensors and numbers for numpy scalars.

    Raises InputError if the file is broken, or names a function that a checkpoint does not need.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive).load()
    except BROKEN as error:
        raise InputError(f'{path}: not a checkpoint that can be read safely: {error}') from error


class Unpickler(pickle.Unpickler):
    """With `ALLOWED` for all that there is."""

    def find_class(self, module: str, name: str) -> Any:
        if module == 'torch' and name in DTYPES:
            return StorageType(np.dtype(DTYPES[name]).newbyteorder('<'))
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f'it names {module}.{name}')
        return ALLOWED[module, name]


class _Reader(Unpickler):
    """Looks for storages in the archive."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        program = next(name for name in archive.namelist() if name.endswith('/data.pkl'))
        self._folder = program.removesuffix('data.pkl')
        self._storages: dict[str, np.ndarray] = {}
        super().__init__(archive.open(program), encoding='utf-8')

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage_type, key, _device, _numel = pid
        if kind != 'storage' or not isinstance(storage_type, StorageType):
            raise pickle.UnpicklingError(f'it refers to {pid!r}')
        if key not in self._storages:
            member = self._archive.getinfo(f'{self._folder}data/{key}')
            # Never compressed by PyTorch; a small file must not become a large array.
            if member.compress_type != zipfile.ZIP_STORED:
                raise pickle.UnpicklingError(f'{member.filename} is compressed')
            data = self._archive.read(member)
            self._storages[key] = np.frombuffer(data, storage_type.dtype)
        return self._storages[key]


class StorageType(NamedTuple):
    """`torch.FloatStorage` and its like."""

    dtype: np.dtype


class _DType:
    """`numpy.dtype` as pickles call it; its state, the byte order, is little everywhere."""

    def __init__(self, name: str, *_):
        if name not in ('b1', 'f4', 'f8', 'i4', 'i8'):
            raise pickle.UnpicklingError(f'it has a numpy scalar of type {name!r}')
        self.dtype = np.dtype('<' + name)

    def __setstate__(self, _):
        pass


def _tensor(storage, offset, size, stride, *_):
    """A view of a storage, once all of it is known to lie inside."""
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride)):
        raise pickle.UnpicklingError(f'a tensor of size {size} with stride {stride}')
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # Repeated elements (stride 0) are refused too: a small file must not become a large array.
    if not 0 < math.prod(size) <= len(storage) or last >= len(storage):
        raise pickle.UnpicklingError(f'a tensor of size {size} in {len(storage)} elements')
    return as_strided(storage[offset:], size, [step * storage.itemsize for step in stride])


def _parameter(data, *_):
    return data


def _scalar(dtype, data):
    return np.frombuffer(data, dtype.dtype, 1)[0].item()


def _bytes(text, _encoding):
    """How pickles of protocol 2, which had no bytes, wrote them."""
    return text.encode('latin-1')


ALLOWED = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('torch._utils', '_rebuild_tensor_v2'): _tensor,
    ('torch._utils', '_rebuild_parameter'): _parameter,
    ('numpy', 'dtype'): _DType,
    ('numpy.core.multiarray', 'scalar'): _scalar,
    ('numpy._core.multiarray', 'scalar'): _scalar,
    ('_codecs', 'encode'): _bytes,
}

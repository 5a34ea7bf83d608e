"""Pickles of arrays, numbers and names, read without executing anything.

A pickle is a program that may call any function it names. Here the few names that pickles of such
data have stand for records of this file, which are put together to arrays once all is read; a
pickle that names anything else is refused.
"""

import io
import pickle
from typing import Any

import numpy as np

# What the loader raises for bytes that are no pickle, or one that misuses what it may name.
BROKEN = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


def loads(content: bytes) -> Any:
    """What is in a pickle, with text for the byte strings of Python 2.

    Raises one of BROKEN for anything but arrays and scalars of whole numbers or floats, lists,
    dictionaries, numbers and text.
    """
    return _Unpickler(io.BytesIO(content), encoding='latin1').load()


class _Unpickler(pickle.Unpickler):
    """With `ALLOWED` for all that there is."""

    def find_class(self, module: str, name: str) -> Any:
        # numpy.core became numpy._core.
        known = ALLOWED.get((module.replace('._core', '.core'), name))
        if known is None:
            raise pickle.UnpicklingError(f'it names {module}.{name}')
        return known


class _DType:
    """`numpy.dtype` as pickles call it, whose state is the order of bytes."""

    def __init__(self, name: str, *_):
        if name.lstrip('<>|=') not in (
            'b1',
            'f4',
            'f8',
            *(f'{k}{n}' for k in 'iu' for n in _SIZES),
        ):
            raise pickle.UnpicklingError(f'it has an array of type {name!r}')
        self.dtype = np.dtype(name)

    def __setstate__(self, state):
        order = state[1]
        if order in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(order)


_SIZES = (1, 2, 4, 8)


class _Array:
    """An array whose shape, type and bytes come as its state."""

    def __setstate__(self, state):
        _version, shape, dtype, is_fortran, content = state
        content = content.encode('latin1') if isinstance(content, str) else content
        self._array = np.frombuffer(content, dtype.dtype).reshape(
            shape, order='F' if is_fortran else 'C'
        )

    def __array__(self, dtype=None, copy=None):
        return self._array if dtype is None else self._array.astype(dtype)


class _NDArray:
    """`numpy.ndarray`, as the argument of `_reconstruct`."""


def _reconstruct(*_):
    return _Array()


def _from_buffer(content, dtype, shape, order):
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _scalar(dtype, content):
    content = content.encode('latin1') if isinstance(content, str) else content
    return np.frombuffer(content, dtype.dtype, 1)[0].item()


def _bytes(text, _encoding):
    """How pickles of protocol 2, which had no bytes, wrote them."""
    return text.encode('latin1')


ALLOWED = {
    ('numpy', 'dtype'): _DType,
    ('numpy', 'ndarray'): _NDArray,
    ('numpy.core.multiarray', '_reconstruct'): _reconstruct,
    ('numpy.core.multiarray', 'scalar'): _scalar,
    ('numpy.core.numeric', '_frombuffer'): _from_buffer,
    ('_codecs', 'encode'): _bytes,
}

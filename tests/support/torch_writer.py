"""Writes PyTorch's zip files without PyTorch: arrays take the place of tensors."""

import collections
import dataclasses
import io
import pathlib
import pickle
import sys
import types
import zipfile
from typing import Any
from unittest import mock

import numpy as np


class FloatStorage:
    """Stands for torch.FloatStorage."""


def _rebuild_tensor_v2(*_):
    """Stands for torch's function, which a pickle needs the name of alone."""


@dataclasses.dataclass
class Tensor:
    """A view of an array, described as PyTorch does, in elements."""

    array: np.ndarray
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0


@dataclasses.dataclass
class _Storage:
    """An array of which a pickle holds the number."""

    array: np.ndarray


class _Pickler(pickle.Pickler):
    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = []

    def reducer_override(self, obj):
        if isinstance(obj, np.ndarray):
            stride = tuple(step // obj.itemsize for step in obj.strides)
            return self.reducer_override(Tensor(obj, obj.shape, stride))
        if isinstance(obj, Tensor):
            hooks = collections.OrderedDict()
            view = (_Storage(obj.array), obj.offset, obj.size, obj.stride)
            return _rebuild_tensor_v2, (*view, False, hooks)
        return NotImplemented

    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        self.storages.append(obj.array)
        return 'storage', FloatStorage, str(len(self.storages) - 1), 'cuda:0', obj.array.size


def write(path: pathlib.Path, saved: Any) -> None:
    """What `torch.save(saved, path)` writes; arrays are float32 and contiguous."""
    program = io.BytesIO()
    pickler = _Pickler(program)
    with _named_as_in_torch():
        pickler.dump(saved)
    write_program(path, program.getvalue(), pickler.storages)


def write_program(path: pathlib.Path, program: bytes, storages: Any = ()) -> None:
    """A zip file of this pickle and these storages."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/version', '3\n')
        archive.writestr('archive/data.pkl', program)
        for key, array in enumerate(storages):
            archive.writestr(f'archive/data/{key}', np.float32(array).tobytes())


def _named_as_in_torch():
    """While this is entered, pickles name the two stand-ins as if they were PyTorch's."""
    torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
    torch._utils, torch.FloatStorage = utils, FloatStorage
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    FloatStorage.__module__, _rebuild_tensor_v2.__module__ = 'torch', 'torch._utils'
    return mock.patch.dict(sys.modules, {'torch': torch, 'torch._utils': utils})

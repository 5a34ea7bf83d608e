"""EDM's network pickles as plain values: without PyTorch, and without running what is in them.

Such a file is a pickle of a dictionary, whose `ema` is the network: an object that the pickle makes
from the name of its class, its state, and the Python source of that class, which is never looked
at. Tensors are as in torch_zip.py, but each storage is a file of torch_legacy.py within the pickle.

Besides tensors nothing in the pickle means anything here. Whatever class or function it names, an
`Object` takes its place, which keeps a state and does nothing; no name is looked up.
"""

import io
import pathlib
import pickle
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from choices import InputError
from published import torch_legacy, torch_zip
from published.torch_zip import BROKEN

PROTOCOLS = (2, 3, 4, 5)  # of pickles whose first byte says that they are one


class Network(NamedTuple):
    """A network of EDM."""

    kind: str  # the name of its class: a preconditioning
    arguments: dict[str, Any]  # by name, with which it was made
    state: dict[str, np.ndarray]  # parameters and buffers by PyTorch's names


def is_pickle(path: pathlib.Path) -> bool:
    """Whether a file begins as a pickle."""
    with path.open('rb') as file:
        head = file.read(2)
    return len(head) == 2 and head[0] == pickle.PROTO[0] and head[1] in PROTOCOLS


def load(path: pathlib.Path) -> Network:
    """The network in the file, with the moving average of its parameters.

    Raises InputError if the file cannot be read, or is no such pickle.
    """
    try:
        with path.open('rb') as file:
            saved = _Reader(file).load()
    except BROKEN as error:
        raise InputError(f'{path}: not a pickle that can be read safely: {error}') from error
    try:
        network = saved['ema']
        arguments = {str(name): value for name, value in network.state['_init_kwargs'].items()}
        return Network(type(network).__name__, arguments, dict(_arrays(network)))
    except BROKEN as error:
        raise InputError(f"{path}: a pickle, and not one of EDM's networks: {error!r}") from error


def _arrays(module, prefix='') -> Iterator[tuple[str, np.ndarray]]:
    """The parameters and buffers of a module and of those in it, as its `state_dict` names them."""
    for kind in ('_parameters', '_buffers'):
        for name, value in module.state[kind].items():
            if isinstance(value, np.ndarray):
                yield f'{prefix}{name}', value
            elif value is not None:
                raise TypeError(f'{prefix}{name} is no tensor')
    for name, child in module.state['_modules'].items():
        if child is not None:
            yield from _arrays(child, f'{prefix}{name}.')


class Object(dict):
    """Stands for whatever a pickle makes, by a class of its name: it keeps a state, and has the
    methods that pickles call, of which none acts.
    """

    def __new__(cls, *_args, **_kwargs):
        return super().__new__(cls)

    def __init__(self, *_args, **_kwargs):
        super().__init__()
        self.state: Any = None

    def __setstate__(self, state):
        self.state = state

    def append(self, _):
        """Of a list."""

    def add(self, _):
        """Of a set."""

    __hash__ = object.__hash__


class _Reader(torch_zip.Unpickler):
    """Reads tensors, and puts objects in the place of all else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == '_reconstruct_persistent_obj':
            return _persistent
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return _storage
        if (module, name) in torch_zip.ALLOWED:
            return torch_zip.ALLOWED[module, name]
        return type(name, (Object,), {})


def _persistent(meta):
    """The object that EDM's `persistence` would make; `meta` has its source too."""
    made = type(meta['class_name'], (Object,), {})()
    made.state = meta['state']
    return made


def _storage(data):
    return torch_legacy.read(io.BytesIO(data), len(data))

"""Results of batches in files, so that what was interrupted does no finished batch again.

The parts of a result lie in one directory, which is named by what they depend on. A file appears
whole or not at all; one that is damaged all the same is made again.
"""

import pathlib
from collections.abc import Callable

import numpy as np

from devices import processes
from storage import files

Arrays = dict[str, np.ndarray]


def keep(directory: pathlib.Path | None, index: int, make: Callable[[], Arrays]) -> Arrays:
    """Part `index` as it is in `directory`, or made and put there. None: made, and kept nowhere."""
    if directory is None:
        return make()
    path = directory / f'{index:06d}.npz'
    found = processes.from_first(lambda: load(path))
    if found is None:
        found = make()
        processes.on_first(save, path, found)
    return found


def save(path: pathlib.Path, arrays: Arrays) -> None:
    """Puts arrays in place of a file."""
    with files.replacing(path) as draft:
        np.savez(draft, **arrays)


def load(path: pathlib.Path) -> Arrays | None:
    """What `save` wrote; None if there is nothing, or the file is damaged."""
    try:
        with np.load(path) as file:
            return dict(file)
    except files.BROKEN_NPZ:
        return None

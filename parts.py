"""Results of batches in files, so that what was interrupted does no finished batch again.

The parts of a result lie in one directory, which is named by what they depend on. A file appears
whole or not at all; one that is damaged all the same is made again.
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32

import files
import processes
from sources import BROKEN_NPZ

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
    except BROKEN_NPZ:
        return None


def fingerprint(given: dict[str, Any], **more: Any) -> str:
    """Ten hexadecimal digits that change with any of these plain values."""
    text = json.dumps(given | more, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@jax.jit
def checksum(params: PyTree[Array]) -> UInt32[Array, '']:
    """Changes with any parameter; the same however the arrays lie on devices."""
    words = (
        jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32).sum(dtype=jnp.uint32)
        for leaf in jax.tree.leaves(params)
    )
    # Odd factors, so that parameters that change places count.
    weighted = (jnp.uint32(2 * i + 1) * word for i, word in enumerate(words))
    return functools.reduce(jnp.add, weighted)

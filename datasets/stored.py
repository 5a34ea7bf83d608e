"""What every source of images gives: images as they are stored, to be read by index."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from choices import InputError
from datasets.inventory import Inventory

SPLITS = ('train', 'test')
NO_LABEL = -1

Indices = Int[np.ndarray, 'chosen']


class Examples(Protocol):
    """Examples of any kind: images, vectors. `gather(indices)` are arrays by name, one row each.

    They may have a `fingerprint` too, text that changes with them (identity.py), and `classes`.
    """

    def __len__(self) -> int: ...

    def gather(self, indices: Int[np.ndarray, 'batch']) -> dict[str, np.ndarray]:
        """The examples with these indices."""


class DataError(InputError):
    """Data that cannot be used. One line: which field or file, what it is, what is allowed."""


def nothing_there(source: str, path: str | os.PathLike, kind: str) -> DataError:
    """What is raised where a source is not: where it was looked for, and what can be done."""
    place = os.path.abspath(path)
    if os.path.exists(place):
        return DataError(f'data.source {source}: {place} is there, and no {kind}, which is needed')
    return DataError(
        f'data.source {source}: there is no such {kind}, {place}; where data have moved, '
        '--config.data.source says the new place'
    )


@dataclasses.dataclass(frozen=True)
class Stored:
    """Images of a source, each of a size and mode of its own.

    read         `read(i)` is an array or a Pillow image, and its label, NO_LABEL if it has none
    length       how many there are
    undivided    whether they are all images of the source; otherwise they are those of the split
                 that was asked for
    fingerprint  text that changes with the images of these indices, or with their labels
    labels       those of the images of these indices, without decoding any; None: unknown until
                 they are read
    arrays       all images [n, h, w, c] and labels [n], where those are in memory
    places       of each image, the same in [0, 1) whatever others there are; None: an image is
                 known by its index alone
    name         what the image with an index is called
    inventory    what the source holds in all of its splits
    """

    read: Callable[[int], tuple[Any, int]]
    length: int
    undivided: bool
    fingerprint: Callable[[Indices], str]
    labels: Callable[[Indices], Int[np.ndarray, 'chosen']] | None = None
    arrays: tuple[np.ndarray, np.ndarray] | None = None
    places: Float[np.ndarray, 'length'] | None = None
    name: Callable[[int], str] = 'image {}'.format
    inventory: Inventory = Inventory()

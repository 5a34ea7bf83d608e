"""The classes of images: what they are called, and how many images each of them has."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

SHOWN = 10  # classes that are named in a line


@dataclasses.dataclass(frozen=True)
class Classes:
    """Classes by label, from 0 on.

    names   what they are called; empty: by their numbers
    counts  how many images they have; empty: that is known only when images are read
    """

    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return max(len(self.names), len(self.counts))

    def name(self, label: int) -> str:
        """What the class of a label is called."""
        return self.names[label] if label < len(self.names) else str(label)

    def existing(self) -> list[int]:
        """The labels that images have; all labels where the numbers of images are not known."""
        return [i for i in range(len(self)) if not self.counts or self.counts[i]]


def of_labels(labels: Int[np.ndarray, 'n'], names: tuple[str, ...] = ()) -> Classes:
    """The classes of images with these labels; negative ones stand for no class."""
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    return Classes(names, tuple(counts.tolist()))


def kept(content: Mapping[str, Any]) -> Classes:
    """The classes that `dataclasses.asdict` has made a dictionary of, as JSON has it."""
    return Classes(tuple(content.get('names', ())), tuple(content.get('counts', ())))


def listed(classes: Classes) -> str:
    """How many classes there are, and the first of them with the numbers of their images."""
    existing = classes.existing()
    if not existing:
        return 'no classes'
    shown = ', '.join(_counted(classes, label) for label in existing[:SHOWN])
    more = f' and {len(existing) - SHOWN:,} more' if len(existing) > SHOWN else ''
    return f'{len(existing):,} class{"es" if len(existing) > 1 else ""}: {shown}{more}'


def _counted(classes: Classes, label: int) -> str:
    return classes.name(label) + (f' ({classes.counts[label]:,})' if classes.counts else '')

"""What a source of images was found to hold, all splits together, and the line that says so."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from jaxtyping import Int

from datasets import classes
from datasets.classes import Classes

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Inventory:
    """What a source holds.

    lengths      images of each split; None: the source has no splits
    labels       gives the labels of all images of all splits; None: they are known only when images
                 are read
    class_names  what classes are called, by label; empty: by their numbers
    sizes        the smallest and the largest (height, width) of an image, by pixels; None: unknown
    skipped      how many files are no images, by the ending of their names
    """

    lengths: Mapping[str, int] | None = None
    labels: Callable[[], Int[np.ndarray, 'n']] | None = None
    class_names: tuple[str, ...] = ()
    sizes: tuple[Size, Size] | None = None
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)


def line(source: str, found: Inventory, lengths: Mapping[str, int]) -> str:
    """One line: images, their sizes, the splits of these lengths, classes, and what was skipped.

    A split alone is not told apart.
    """
    of_splits = ', '.join(f'{length:,} {split}' for split, length in lengths.items())
    splits = f' ({of_splits})' if len(lengths) > 1 else ''
    of_sizes = f' of {_sizes(*found.sizes)} pixels' if found.sizes else ''
    return (
        f'{source}: {sum(lengths.values()):,} images{of_sizes}{splits}, '
        f'{_classes(found)}{skipped(found.skipped)}'
    )


def extent(sizes: Iterable[Size]) -> tuple[Size, Size]:
    """The sizes with the fewest and with the most pixels."""
    by_pixels = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    return by_pixels[0], by_pixels[-1]


def skipped(numbers: Mapping[str, int]) -> str:
    """How many files of which other types there are, to stand at the end of a line."""
    if not numbers:
        return ''
    total = sum(numbers.values())
    files = 'file of another type' if total == 1 else 'files of other types'
    return f'; {total:,} {files} skipped: {", ".join(sorted(numbers))}'


def ending(name: str) -> str:
    """The ending of a file's name, in lower case."""
    return os.path.splitext(name)[1].lower() or 'without an ending'


def _sizes(smallest: Size, largest: Size) -> str:
    shown = [f'{height:,}x{width:,}' for height, width in (smallest, largest)]
    return shown[0] if smallest == largest else ' to '.join(shown)


def _classes(found: Inventory) -> str:
    if found.labels is None:
        return classes.listed(Classes(found.class_names))
    labels = found.labels()
    without = int((labels < 0).sum())
    known = classes.listed(classes.of_labels(labels, found.class_names))
    return known if without in (0, len(labels)) else f'{known}, {without:,} without a class'

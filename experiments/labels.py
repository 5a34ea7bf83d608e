"""Whether the labels of images are those that a network with classes learns or is given."""

import dataclasses

import numpy as np
from jaxtyping import Int

from choices import InputError
from datasets import identity
from datasets.loading import Images
from devices import processes

# Where labels are known only with the images, so many are looked at before anything is compiled.
LOOKED_AT = 256
SHOWN = 10  # classes that are named in a line


def checked(images: Images, split: str, source: str, num_classes: int) -> Images:
    """The images, if each has a label from 0 to num_classes - 1; InputError otherwise.

    Where labels are known only with the images, some are looked at now and the others when they
    are read, which then raises InputError.
    """
    of = f'images of the {split} split of data.source {source!r}'
    if images.labels is not None:
        labels = images.labels()
        _check(labels, of, num_classes)
        _tell_of_missing(labels, of, num_classes)
        return images

    def gather(indices):
        batch = images.gather(indices)
        _check(batch['label'], of, num_classes)
        return batch

    gather(identity.spread(len(images), LOOKED_AT))
    return dataclasses.replace(images, gather=gather)


def _check(labels: Int[np.ndarray, 'n'], of: str, num_classes: int) -> None:
    num_without, num_beyond = int((labels < 0).sum()), int((labels >= num_classes).sum())
    needed = f'labels from 0 to {num_classes - 1} needed, of all of them'
    if num_without:
        raise InputError(
            f'model.num_classes: {num_classes}, and {num_without:,} of {len(labels):,} {of} have '
            f'no label; {needed}'
        )
    if num_beyond:
        least, largest = labels[labels >= num_classes].min(), labels.max()
        raise InputError(
            f'model.num_classes: {num_classes}, and {num_beyond:,} of {len(labels):,} {of} have '
            f'labels from {least} to {largest}; {needed}'
        )


def _tell_of_missing(labels: Int[np.ndarray, 'n'], of: str, num_classes: int) -> None:
    """A line if a class has no image: a network learns nothing of it."""
    missing = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if len(missing):
        shown = ', '.join(map(str, missing[:SHOWN])) + (', ...' if len(missing) > SHOWN else '')
        processes.tell_once(
            f'model.num_classes: {num_classes}, and no {of} are of the classes {shown}'
        )

"""Whether the labels of images are those that a network with classes learns or is given."""

import dataclasses

import numpy as np
from jaxtyping import Int

from choices import InputError
from datasets import classes, identity
from datasets.classes import SHOWN, Classes
from datasets.loading import Images
from devices import processes

# Where labels are known only with the images, so many are looked at before anything is compiled.
LOOKED_AT = 256


def checked(images: Images, split: str, source: str, num_classes: int) -> Images:
    """The images, if each has a label from 0 to num_classes - 1; InputError otherwise.

    Where labels are known only with the images, some are looked at now and the others when they
    are read, which then raises InputError.
    """
    of = f'images of the {split} split of data.source {source!r}'
    if images.labels is not None:
        labels = images.labels()
        _check(labels, of, num_classes, images.class_names)
        _tell_of_missing(labels, of, num_classes, images.class_names)
        return images
    _check_names(images.class_names, source, num_classes)

    def gather(indices):
        batch = images.gather(indices)
        _check(batch['label'], of, num_classes, images.class_names)
        return batch

    gather(identity.spread(len(images), LOOKED_AT))
    return dataclasses.replace(images, gather=gather)


def _check(
    labels: Int[np.ndarray, 'n'], of: str, num_classes: int, class_names: tuple[str, ...]
) -> None:
    num_without, num_beyond = int((labels < 0).sum()), int((labels >= num_classes).sum())
    found = classes.listed(classes.of_labels(labels, class_names))
    needed = f'labels from 0 to {num_classes - 1} needed, of all of them; they have {found}'
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


def _check_names(class_names: tuple[str, ...], source: str, num_classes: int) -> None:
    """Raises InputError if a source has more classes than a network, whichever the first are."""
    if len(class_names) > num_classes:
        raise InputError(
            f'model.num_classes: {num_classes}, and data.source {source!r} has '
            f'{classes.listed(Classes(class_names))}; as many needed'
        )


def _tell_of_missing(
    labels: Int[np.ndarray, 'n'], of: str, num_classes: int, class_names: tuple[str, ...]
) -> None:
    """A line if a class has no image: a network learns nothing of it."""
    missing = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0).tolist()
    if missing:
        name = Classes(class_names).name
        shown = ', '.join(map(name, missing[:SHOWN])) + (', ...' if len(missing) > SHOWN else '')
        processes.tell_once(
            f'model.num_classes: {num_classes}, and no {of} are of the classes {shown}'
        )

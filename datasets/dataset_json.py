"""Labels in `dataset.json`, as the dataset tools of StyleGAN and EDM write it beside images.

    {"labels": [["00000/img00000000.png", 6], ...]}    or    {"labels": null}

Paths are below the folder that the file lies in. Folders beside such a file are no classes.
"""

import json
from collections.abc import Iterable

from datasets.image_files import ImageFile
from datasets.stored import DataError

NAME = 'dataset.json'


def read(source: str, files: Iterable[ImageFile]) -> dict[str, int]:
    """The labels in these files, by the names of images below the folder of the source.

    Raises DataError if one of them is something else.
    """
    found = {}
    for file in files:
        folder = file.name.removesuffix(NAME)
        found |= {folder + name: label for name, label in _labels(source, file)}
    return found


def _labels(source: str, file: ImageFile) -> list[tuple[str, int]]:
    try:
        with file.open() as stream:
            content = json.load(stream)
    except (OSError, ValueError) as error:
        raise DataError(f'data.source {source}: {file.path} cannot be read: {error}') from error
    rows = content.get('labels', ()) if isinstance(content, dict) else None
    try:
        labels = [(str(name).replace('\\', '/'), label) for name, label in rows or ()]
    except (TypeError, ValueError) as error:
        raise DataError(f'data.source {source}: {file.path} is {NEEDED}') from error
    if rows is None and not isinstance(content, dict):
        raise DataError(f'data.source {source}: {file.path} is {NEEDED}')
    for name, label in labels:
        # To Python, a bool is an int.
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < 2**31:
            raise DataError(
                f'data.source {source}: {file.path} has the label {label!r:.40} for {name}; whole '
                'numbers from 0 on needed'
            )
    return labels


NEEDED = 'no list of labels; {"labels": [["PATH", LABEL], ...]} or {"labels": null} needed'

"""Files that appear whole or not at all."""

import contextlib
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write to; what is there at the end takes the place of `path` at once.

    So a crash leaves the old file or the new one. The directory is made if there is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Ends like the file: writers go by the suffix.
    draft = path.with_name(f'.draft_{path.name}')
    yield draft
    draft.replace(path)

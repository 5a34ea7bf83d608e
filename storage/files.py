"""Files that appear whole or not at all, and what reading a broken one raises."""

import contextlib
import pathlib
import zipfile
import zlib
from collections.abc import Iterator

# What numpy raises for an .npz file that is something else, or only half of one.
BROKEN_NPZ = (OSError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


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

"""Paths that users write, files that appear whole or not at all, and what is said of those that
cannot be written or read."""

import contextlib
import errno
import functools
import os
import pathlib
import secrets
import tempfile
import zipfile
import zlib
from collections.abc import Iterator

from choices import InputError, RunError
from devices import leftovers

# What numpy raises for an .npz file that is something else, or only half of one.
BROKEN_NPZ = (OSError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)

# What is wrong with a disk and not with a path.
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
PROBE_BYTES = 4096  # A directory may be made on a disk that has no place for a file.


def user_path(given: str, argument: str) -> pathlib.Path:
    """A path as a user has written it, where ~ and ~NAME are the directories that a shell makes of
    them; InputError, which begins with `argument`, if there is no such user, or no path.
    """
    if not given:
        raise InputError(f'{argument}: a path is needed, and it is empty')
    path = os.path.expanduser(given)
    if path.startswith('~'):
        user = path.split('/')[0]
        raise InputError(f'{argument}: {given}: no home directory is known of {user}')
    return pathlib.Path(path)


# Before there is work to lose


def check_directory(path: pathlib.Path, argument: str) -> None:
    """Raises InputError, which begins with `argument`, unless files can be put into a directory.

    It need not be there yet, and is not made.
    """
    try:
        nearest = next(at for at in (path, *path.absolute().parents) if _is_taken(at))
        if not nearest.is_dir():
            raise InputError(f'{argument}: {nearest} is no directory, and one is needed')
        with tempfile.TemporaryFile(dir=nearest, buffering=0) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        raise InputError(
            f'{argument}: nothing can be written to {path}: {reason(error)}'
        ) from error


def _is_taken(path: pathlib.Path) -> bool:
    """Whether there is something, even a link to nothing, in whose place no directory can be."""
    return path.is_symlink() or path.exists()


# Writing


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """What the system refuses within it becomes a RunError that names the file and says why."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f'{path} cannot be written: {reason(error)}; what was saved before is whole, and the '
            'same command goes on from it'
        ) from error


def reason(error: OSError) -> str:
    """The words of the system, without the path that Python adds."""
    return error.strerror or str(error)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write to; what is there at the end takes the place of `path` at once.

    So a crash leaves the old file or the new one, and of several processes that write the file at
    the same time the last one has it. The directory is made if there is none.
    Raises RunError for what the system refuses; the draft is then gone, and its place free, as it
    is if a signal ends the program.
    """
    # Ends like the file: writers go by the suffix. No other process writes to this one.
    draft = path.with_name(f'.draft_{secrets.token_hex(4)}_{path.name}')
    remove = functools.partial(draft.unlink, missing_ok=True)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        leftovers.add(remove)
        try:
            yield draft
            draft.replace(path)
        except BaseException:
            remove()
            raise
        finally:
            leftovers.discard(remove)

"""Files that are downloaded once: where they are kept, and how they are known to be whole."""

import functools
import hashlib
import os
import pathlib
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import NamedTuple

from datasets.stored import DataError
from storage import files

CHUNK = 2**20
TIMEOUT_SECONDS = 30  # without a byte


class Published(NamedTuple):
    """A file that somebody has published, and its MD5."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        """What the file is called."""
        return self.url.rpartition('/')[2]


def cache(data_dir: str | None) -> pathlib.Path:
    """Where downloaded files are kept: `data_dir`, or `score_sde/data` of the user's cache.

    That is the environment variable XDG_CACHE_HOME, or ~/.cache.
    """
    if data_dir is not None:
        return pathlib.Path(data_dir)
    home = os.path.expanduser(os.environ.get('XDG_CACHE_HOME') or '~/.cache')
    return pathlib.Path(home, 'score_sde', 'data')


def fetch(file: Published, directory: pathlib.Path, source: str, instead: str) -> pathlib.Path:
    """The path of a file in a directory, to which it is downloaded if it is not there.

    Of several processes the first downloads it, and of those on other machines each for itself.
    Raises DataError, which names the `source`, if it cannot be downloaded or arrives damaged;
    `instead` is what a user can do then, besides putting the file there.
    """
    from devices import processes

    path = directory / file.name

    def get():
        if not path.exists():
            _download(file, path, source, instead)

    processes.from_first(get)
    get()
    return path


def _download(file: Published, path: pathlib.Path, source: str, instead: str) -> None:
    with files.replacing(path) as draft:
        try:
            _copy(file, draft)
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise DataError(
                f'data.source {source}: {file.url} cannot be downloaded ({reason}); put '
                f'{file.name} into {path.parent}, or {instead}'
            ) from error
        _check_whole(file, draft, source)


def _copy(file: Published, draft: pathlib.Path) -> None:
    from devices import processes

    with (
        urllib.request.urlopen(file.url, timeout=TIMEOUT_SECONDS) as answer,
        draft.open('wb') as written,
    ):
        total = int(answer.headers.get('Content-Length') or 0) or None
        options = {'unit': 'B', 'unit_scale': True, 'desc': f'downloading {file.name}'}
        with processes.bar(total=total, **options) as bar:
            while chunk := answer.read(CHUNK):
                written.write(chunk)
                bar.update(len(chunk))


def _check_whole(file: Published, path: pathlib.Path, source: str) -> None:
    found = md5(path)
    if found != file.md5:
        raise DataError(
            f'data.source {source}: {file.url} arrived damaged: its MD5 is {found}, and '
            f'{file.md5} was published; try again'
        )


def md5(path: str | os.PathLike) -> str:
    """The MD5 of a file's content, in hexadecimal digits."""
    stat = os.stat(path)
    return _md5(os.fspath(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=32)  # Both splits are found in the same files.
def _md5(path: str, _size: int, _written: int) -> str:
    with open(path, 'rb') as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

"""Files in zip and tar archives, read by their places, by any thread or process, unpacked nowhere.

What is not compressed is read from its place in the archive, as from a file of its own. What is
compressed is looked up in a zip archive; a tar archive that is compressed has no places, and is
held in memory.
"""

import functools
import lzma
import os
import re
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from datasets.stored import DataError, nothing_there

# Of a compressed tar archive so much is held in memory.
HELD_BYTES = 2 * 2**30
BROKEN_ZIP = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
BROKEN_TAR = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error, lzma.LZMAError)
# How tar archives begin that are compressed, by the modes that tarfile reads them in.
COMPRESSED = {
    'r:gz': rb'\x1f\x8b',
    'r:bz2': rb'BZh[1-9]1AY&SY',
    'r:xz': rb'\xfd7zXZ\0|\]\0\0',
}
UNCOMPRESSED = 'r:'
CHUNK = 2**20
# In a zip archive the name of a file, and more, lie before it: their lengths are in its header.
HEADER_BYTES, LENGTHS_AT = 30, 26
ENCRYPTED = 1  # a bit of the flags in a zip archive


class Member(Protocol):
    """The place of a file in an archive."""

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """So many bytes from `start` on, or all of the rest; OSError if they are not there."""


class Entry(NamedTuple):
    """A file of an archive: its name, with '/' between folders, its size and its place."""

    name: str
    size: int
    member: Member


def zip_entries(path: str, source: str) -> Iterator[Entry]:
    """The files of a zip archive; DataError, which names the source, if it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    except FileNotFoundError:
        raise nothing_there(source, path, 'file') from None
    except BROKEN_ZIP as error:
        raise DataError(
            f'data.source {source} is no zip archive, or one that is cut short ({error})'
        ) from error
    written = os.stat(path).st_mtime_ns
    for name, info in found.items():
        if info.flag_bits & ENCRYPTED:
            raise DataError(f'data.source {source}: {name} is encrypted; unpack the archive')
        if info.compress_type == zipfile.ZIP_STORED:
            member = _InZip(path, info.header_offset, info.file_size)
        else:
            member = _Compressed(path, written, name)
        # Some programs of Windows write its separators.
        yield Entry(name.replace('\\', '/'), info.file_size, member)


def tar_entries(path: str, source: str, is_wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """The files of a tar archive; DataError, which names the source, if it is none, or damaged.

    Of a compressed one only those that are wanted by their names can be read, and all of them
    together take HELD_BYTES at most. Links are left out; if they are wanted, a line says so.
    """
    try:
        mode = _tar_mode(path)
        with tarfile.open(path, mode) as archive:
            files = _to_the_end(archive)
            if mode == UNCOMPRESSED:
                found = [Entry(f.name, f.size, _InTar(path, f.offset_data, f.size)) for f in files]
            else:
                found = _in_memory(archive, files, source, is_wanted)
            links = [info for info in archive.getmembers() if info.issym() or info.islnk()]
    except FileNotFoundError:
        raise nothing_there(source, path, 'file') from None
    except BROKEN_TAR as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f'data.source {source} is no tar archive, or one that is cut short or damaged '
            f'({error}); copy or download it again'
        ) from error
    _tell_of_links(source, sum(is_wanted(link.name) for link in links))
    yield from {entry.name: entry for entry in found}.values()


def _tar_mode(path: str) -> str:
    """The mode that tarfile reads an archive in, by its first bytes."""
    with open(path, 'rb') as stream:
        beginning = stream.read(16)
    is_one = (mode for mode, pattern in COMPRESSED.items() if re.match(pattern, beginning))
    return next(is_one, UNCOMPRESSED)


def _to_the_end(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files of an open archive, without links and folders; ReadError if its end is missing.

    tarfile takes whatever is no header for the end, and a file that is cut short as well.
    """
    for info in archive:
        if info.isfile():
            yield info
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f'its end is missing, {tarfile.BLOCKSIZE} zeros')


def _in_memory(
    archive: tarfile.TarFile,
    files: Iterator[tarfile.TarInfo],
    source: str,
    is_wanted: Callable[[str], bool],
) -> list[Entry]:
    """The files with their contents, of those that are wanted; DataError above HELD_BYTES."""
    found, held = [], 0
    for info in files:
        content = archive.extractfile(info).read() if is_wanted(info.name) else b''
        found.append(Entry(info.name, info.size, _Held(content)))
        held += len(content)
        if held > HELD_BYTES:
            raise DataError(
                f'data.source {source} is compressed, and its images take over {HELD_BYTES:,} '
                'bytes, which would be held in memory; unpack it, and give folder:PATH, or '
                'decompress it to a .tar file'
            )
    # Behind the last byte is a checksum of the whole.
    while archive.fileobj.read(CHUNK):
        pass
    return found


def _tell_of_links(source: str, number: int) -> None:
    from devices import processes

    if number:
        processes.tell_once(
            f'data.source {source}: {number:,} of its files are links, and are left out; unpack '
            'the archive, and they are followed'
        )


# Members


class _InTar(NamedTuple):
    """Bytes that lie in an archive as they are."""

    archive: str
    offset: int
    size: int

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        return _slice(self.archive, self.offset, self.size, start, length)


class _InZip(NamedTuple):
    """Bytes that lie in a zip archive as they are, behind a header."""

    archive: str
    header: int
    size: int

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        lengths = _slice(self.archive, self.header, HEADER_BYTES)[LENGTHS_AT:]
        offset = self.header + HEADER_BYTES + sum(struct.unpack('<HH', lengths))
        return _slice(self.archive, offset, self.size, start, length)


class _Compressed(NamedTuple):
    """A compressed file of a zip archive."""

    archive: str
    written: int
    name: str

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        end = None if length is None else start + length
        try:
            opened, one_at_a_time = _opened_zip(self.archive, self.written, os.getpid())
            with one_at_a_time, opened.open(self.name) as stream:
                return stream.read(-1 if end is None else end)[start:]
        except BROKEN_ZIP as error:
            raise OSError(str(error)) from error


class _Held(NamedTuple):
    """Bytes in memory."""

    content: bytes

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        return self.content[start : None if length is None else start + length]


def _slice(path: str, offset: int, size: int, start: int = 0, length: int | None = None) -> bytes:
    """Bytes of the file that lies at `offset` of an archive, and has this size."""
    wanted = max(0, size - start if length is None else min(length, size - start))
    with open(path, 'rb', buffering=0) as stream:
        stream.seek(offset + start)
        found = stream.read(wanted)
    if len(found) < wanted:
        raise OSError(f'{path} is cut short')
    return found


@functools.lru_cache(maxsize=4)
def _opened_zip(path: str, _written: int, _process: int) -> tuple[zipfile.ZipFile, threading.Lock]:
    """An open archive, for one thread at a time. A forked process opens its own: they would share
    one position in it.
    """
    return zipfile.ZipFile(path), threading.Lock()

"""CIFAR-10 and CIFAR-100 from their official archives, or from the folders that these unpack to.

    cifar-10-python.tar.gz    cifar-10-batches-py/   data_batch_1 ... test_batch: pickles
    cifar-10-binary.tar.gz    cifar-10-batches-bin/  data_batch_1.bin ... test_batch.bin: rows
    cifar-100-python.tar.gz   cifar-100-python/      train, test, meta
    cifar-100-binary.tar.gz   cifar-100-binary/      train.bin, test.bin, fine_label_names.txt

A row is its labels, one byte each, and 3,072 bytes: 32x32 reds, greens and blues. CIFAR-100 has a
coarse label before the fine one, which is used here. Krizhevsky 2009,
https://www.cs.toronto.edu/~kriz/cifar.html.

Files are known by the published MD5 sums. Others are read too if they are made like them, and a
line says that they are not the published ones.
"""

import functools
import os
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from datasets import archives, downloads, pickles
from datasets.downloads import Published
from datasets.stored import DataError, nothing_there

SIDE, PIXELS = 32, 3 * 32 * 32
URL = 'https://www.cs.toronto.edu/~kriz/'


class Format(NamedTuple):
    """One of the two formats of a data set.

    archive  the file that was published
    folder   the folder that it holds
    train    the names of the files with training images; (\\d+) is the number of one of several
    test     the name of the file with test images
    meta     the name of the file with the names of classes
    md5      of files in the folder, where these were published
    """

    archive: Published
    folder: str
    train: str
    test: str
    meta: str
    md5: Mapping[str, str]

    @property
    def is_binary(self) -> bool:
        """Whether images are rows of bytes; otherwise they are pickles."""
        return self.test.endswith('.bin')


class DataSet(NamedTuple):
    """CIFAR-10 or CIFAR-100: the key of labels and of their names in pickles, how many bytes of
    labels a row has, how many classes there are, and the formats; the first is downloaded."""

    labels: str
    names: str
    num_labels: int
    num_classes: int
    formats: tuple[Format, ...]


class Split(NamedTuple):
    """Images and labels of a split."""

    images: UInt8[np.ndarray, 'n 32 32 3']
    labels: Int[np.ndarray, 'n']


class Found(NamedTuple):
    """All that a folder or an archive has; `class_names` is empty if it does not tell them."""

    train: Split
    test: Split
    class_names: tuple[str, ...]


def find(name: str, path: str | None, data_dir: str | None) -> Found:
    """CIFAR-10 or CIFAR-100.

    Args:
        name: a key of DATA_SETS.
        path: an archive, the folder that it unpacks to, or a folder that holds either. None: the
            published archive, from `downloads.cache(data_dir)`, or downloaded to it.
        data_dir: where downloads are kept, if not in the user's cache.

    Raises:
        DataError: there is no such file, it cannot be downloaded, or it is damaged; without a
            `path` also if it is another one than was published.
    """
    if path is None:
        return _read(name, name, *_state(_published(name, downloads.cache(data_dir))))
    source = f'{name}:{path}'
    return _read(source, name, *_state(_locate(source, name, pathlib.Path(path))))


def _state(place: pathlib.Path) -> tuple[pathlib.Path, tuple]:
    """A file or a folder, and what changes with its content."""
    files = [place] if place.is_file() else sorted(place.iterdir())
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return place, tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


def _published(name: str, directory: pathlib.Path) -> pathlib.Path:
    """The published archive, of either format, from a directory, or downloaded to it."""
    published = [form.archive for form in DATA_SETS[name].formats]
    there = [archive for archive in published if (directory / archive.name).exists()]
    archive = (there or published)[0]
    path = downloads.fetch(archive, directory, name, f'give --config.data.source={name}:PATH')
    found = downloads.md5(path)
    if found != archive.md5:
        raise DataError(
            f'data.source {name}: {path} is not the published file: its MD5 is {found}, and '
            f'{archive.md5} was published; delete it, and it is downloaded again, or give '
            f'{name}:{path} to use it as it is'
        )
    return path


def _locate(source: str, name: str, path: pathlib.Path) -> pathlib.Path:
    """The archive or the folder that a path means."""
    if not path.exists():
        raise nothing_there(source, path, 'file or folder')
    if path.is_file():
        return path
    formats = DATA_SETS[name].formats
    unpacked = [path / folder for form in formats for folder in ('', form.folder)]
    for place in unpacked:
        if any((place / form.test).is_file() for form in formats):
            return place
    packed = (path / form.archive.name for form in formats)
    found = next((archive for archive in packed if archive.is_file()), None)
    if found is None:
        raise DataError(f'data.source {source} holds {_neither(name)}')
    return found


def _neither(name: str) -> str:
    formats = DATA_SETS[name].formats
    packed = ' or '.join(form.archive.name for form in formats)
    tests = ' nor '.join(form.test for form in formats)
    return f'neither {tests}; {packed} needed, or the folder that it unpacks to'


# Reading


@functools.lru_cache(maxsize=1)  # Both splits are asked for, one after the other.
def _read(source: str, name: str, place: pathlib.Path, _state: tuple) -> Found:
    data_set = DATA_SETS[name]
    files = _in_folder(place) if place.is_dir() else _in_archive(source, place)
    form = next((form for form in data_set.formats if form.test in files), None)
    if form is None:
        raise DataError(f'data.source {source} holds {_neither(name)}')
    _check_published(source, place, form)
    names = [*_training_files(source, form, files), form.test]
    *train, test = (_split(source, data_set, form, *files[one]) for one in names)
    train_images, train_labels = zip(*train, strict=True)
    return Found(
        Split(np.concatenate(train_images), np.concatenate(train_labels)),
        test,
        _class_names(source, data_set, form, files.get(form.meta)),
    )


# By its name, what a file is called in messages, and its content.
Files = dict[str, tuple[str, bytes]]


def _in_folder(place: pathlib.Path) -> Files:
    files = [path for path in sorted(place.iterdir()) if path.is_file() and _is_part(path.name)]
    return {path.name: (str(path), path.read_bytes()) for path in files}


def _in_archive(source: str, path: pathlib.Path) -> Files:
    """The files of an archive, compressed or not."""
    entries = archives.tar_entries(str(path), source, _is_part)
    parts = {os.path.basename(entry.name): entry for entry in entries if _is_part(entry.name)}
    return {name: (f'{path}/{name}', entry.member.read()) for name, entry in parts.items()}


def _is_part(path: str) -> bool:
    """Whether a file belongs to any of the data sets, by its name."""
    name = os.path.basename(path)
    return any(
        name in (form.test, form.meta) or re.fullmatch(form.train, name)
        for data_set in DATA_SETS.values()
        for form in data_set.formats
    )


def _training_files(source: str, form: Format, files: Files) -> list[str]:
    """The names of the files with training images, in their order, of which none is missing."""
    found = {name: re.fullmatch(form.train, name) for name in files}
    numbers = sorted(
        (int(match.group(1)) if match.groups() else 1, name)
        for name, match in found.items()
        if match
    )
    if not numbers or [number for number, _ in numbers] != list(range(1, len(numbers) + 1)):
        names = ', '.join(name for _, name in numbers) or 'none of them'
        raise DataError(
            f'data.source {source}: of the files with training images it has {names}; unpack the '
            'archive again'
        )
    return [name for _, name in numbers]


def _split(source: str, data_set: DataSet, form: Format, path: str, content: bytes) -> Split:
    """The images of one file, of one of the formats."""
    if form.is_binary:
        rows = _rows(path, content, data_set.num_labels + PIXELS)
        labels, pixels = rows[:, data_set.num_labels - 1], rows[:, data_set.num_labels :]
    else:
        labels, pixels = _pickled(path, content, data_set.labels)
    if labels.max(initial=0) >= data_set.num_classes or labels.min(initial=0) < 0:
        raise DataError(
            f'data.source {source}: {path} has labels from {labels.min()} to {labels.max()}; from '
            f'0 to {data_set.num_classes - 1} needed'
        )
    images = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels.astype(np.int32))


def _rows(path: str, content: bytes, length: int) -> UInt8[np.ndarray, 'n length']:
    if not content or len(content) % length:
        raise DataError(
            f'{path} is damaged: it has {len(content):,} bytes, and rows of {length:,} are needed'
        )
    return np.frombuffer(content, np.uint8).reshape(-1, length)


def _pickled(path: str, content: bytes, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The labels and the rows of pixels of a pickled batch."""
    found = _unpickled(path, content)
    try:
        labels, pixels = np.asarray(found[key]), np.asarray(found['data'])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no batch of images: 'data' and {key!r} needed") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != PIXELS or not len(pixels):
        raise DataError(
            f"{path}: 'data' is {pixels.dtype} {pixels.shape}; uint8 (n, {PIXELS}) needed"
        )
    if labels.dtype.kind not in 'iu' or labels.shape != pixels.shape[:1]:
        raise DataError(
            f'{path}: {key!r} is {labels.dtype} {labels.shape}; a whole number for each of the '
            f'{len(pixels):,} images needed'
        )
    return labels, pixels


def _unpickled(path: str, content: bytes) -> dict:
    """The dictionary in a pickle, with text for keys."""
    try:
        found = pickles.loads(content)
    except pickles.BROKEN as error:
        raise DataError(f'{path} is no pickle that can be read safely: {error}') from error
    if not isinstance(found, dict):
        raise DataError(f'{path} holds no dictionary, which is needed')
    return {_text(key): value for key, value in found.items()}


def _class_names(
    source: str, data_set: DataSet, form: Format, meta: tuple[str, bytes] | None
) -> tuple[str, ...]:
    """The names of classes, in the order of labels; none if there is no file of them."""
    if meta is None:
        return ()
    path, content = meta
    if form.is_binary:
        names = content.decode(errors='replace').split()
    else:
        names = [_text(name) for name in _unpickled(path, content).get(data_set.names, ())]
    if len(names) != data_set.num_classes:
        raise DataError(
            f'data.source {source}: {path} names {len(names)} classes; '
            f'{data_set.num_classes} needed'
        )
    return tuple(names)


def _text(name: object) -> str:
    return name.decode('latin1') if isinstance(name, bytes) else str(name)


# Checksums


def _check_published(source: str, place: pathlib.Path, form: Format) -> None:
    """Says in a line that files are others than were published; raises DataError if some of them
    are those, and others not: then these are damaged.
    """
    from devices import processes

    if place.is_file():
        if downloads.md5(place) != form.archive.md5:
            processes.tell_once(
                f'data.source {source}: not the published {form.archive.name}, whose MD5 is '
                f'{form.archive.md5}; numbers of these images do not compare with published ones'
            )
        return
    paths = {name: place / name for name in form.md5}
    right = {name: p.exists() and downloads.md5(p) == form.md5[name] for name, p in paths.items()}
    if any(right.values()) and not all(right.values()):
        wrong = next(name for name, is_right in right.items() if not is_right)
        raise DataError(
            f'data.source {source}: {place / wrong} is damaged or missing: its MD5 is not the '
            f'published {form.md5[wrong]}; unpack {form.archive.name} again'
        )
    if form.md5 and not any(right.values()):
        processes.tell_once(
            f'data.source {source}: not the files of the published {form.archive.name}; numbers of '
            'these images do not compare with published ones'
        )


DATA_SETS = {
    'cifar10': DataSet(
        labels='labels',
        names='label_names',
        num_labels=1,
        num_classes=10,
        formats=(
            Format(
                Published(f'{URL}cifar-10-python.tar.gz', 'c58f30108f718f92721af3b95e74349a'),
                'cifar-10-batches-py',
                r'data_batch_(\d+)',
                'test_batch',
                'batches.meta',
                {
                    'data_batch_1': 'c99cafc152244af753f735de768cd75f',
                    'data_batch_2': 'd4bba439e000b95fd0a9bffe97cbabec',
                    'data_batch_3': '54ebc095f3ab1f0389bbae665268c751',
                    'data_batch_4': '634d18415352ddfa80567beed471001a',
                    'data_batch_5': '482c414d41f54cd18b22e5b47cb7c3cb',
                    'test_batch': '40351d587109b95175f43aff81a1287e',
                },
            ),
            Format(
                Published(f'{URL}cifar-10-binary.tar.gz', 'c32a1d4ab5d03f1284b67883e8d87530'),
                'cifar-10-batches-bin',
                r'data_batch_(\d+)\.bin',
                'test_batch.bin',
                'batches.meta.txt',
                {},
            ),
        ),
    ),
    'cifar100': DataSet(
        labels='fine_labels',
        names='fine_label_names',
        num_labels=2,
        num_classes=100,
        formats=(
            Format(
                Published(f'{URL}cifar-100-python.tar.gz', 'eb9058c3a382ffc7106e4002c42a8d85'),
                'cifar-100-python',
                'train',
                'test',
                'meta',
                {
                    'train': '16019d7e3df5f24257cddd939b257f8d',
                    'test': 'f0ef6b0ae62326f3e7ffdfab6717acfc',
                },
            ),
            Format(
                Published(f'{URL}cifar-100-binary.tar.gz', '03b5dce01913d631647c71ecec9e9cb8'),
                'cifar-100-binary',
                r'train\.bin',
                'test.bin',
                'fine_label_names.txt',
                {},
            ),
        ),
    ),
}

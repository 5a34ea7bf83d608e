"""Images as uint8 batches, NHWC, as a pure function of (seed, step).

`batches` streams the images of a split for training, `epoch` goes through them once for evaluation.
Batch k of size B holds the positions k B, ..., (k + 1) B - 1 of an endless sequence: permutations
of all images, one an epoch, end to end, where that of epoch e depends on (seed, e) alone. With
replacement it holds B images that are drawn from all, independently of all others, by (seed, k). So
a run can start again at any step and reads what it would have read.
"""

import math
import os
import sys
from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Int

from datasets.loading import Batch, permutation
from datasets.stored import DataError, Examples

# A thread reads a whole batch: decoding wants all cores, and two more threads to wait for the disk.
NUM_READERS = min(16, 2 + (os.cpu_count() or 1))
READ_OPTIONS = grain.ReadOptions(num_threads=NUM_READERS, prefetch_buffer_size=NUM_READERS)


def stream(
    examples: Examples,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    replacement: bool = False,
) -> grain.MapDataset:
    """All training batches, without end: `stream(...)[k]` is batch k.

    Every epoch has each image once, in an order of its own; a batch may end one epoch and begin the
    next. With `replacement` there are no epochs: every image of a batch is any, as probable as all
    others. Each of several processes gets its slice of the rows; the slices, one after another, are
    the batch that a single process would get.

    Raises:
        DataError: the batch is larger than the data, or not divisible by the number of processes.
    """
    rows = own_rows(batch_size, process_index, process_count)
    if batch_size > len(examples):
        raise DataError(f'batch_size is {batch_size:,}, more than all {len(examples):,} examples')

    def batch(k):
        if replacement:
            return examples.gather(_drawn(k, batch_size, len(examples), seed)[rows])
        return examples.gather(_shuffled(k * batch_size + rows, len(examples), seed))

    return grain.MapDataset.range(sys.maxsize // batch_size).map(batch)


def batch_at(dataset: grain.MapDataset, step: int) -> Batch:
    """Batch `step` of a `stream`: the one that `batches` yields there."""
    return dataset[step]


def batches(
    examples: Examples,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    replacement: bool = False,
) -> Iterator[Batch]:
    """Iterates over a `stream` from `start_step` on, reading ahead in threads."""
    dataset = stream(examples, batch_size, seed, process_index, process_count, replacement)
    return iter(dataset[start_step:].to_iter_dataset(READ_OPTIONS))


def epoch(
    examples: Examples, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Iterates once over all images, in their order, in batches of one shape, for evaluation.

    A batch has besides, of its rows, the 'index' among all images, and a bool 'mask': over all
    batches and processes it is True once for each image, and False where the last batch is filled
    up, with copies of the last image and further indices.
    """
    rows = own_rows(batch_size, process_index, process_count)

    def batch(k):
        positions = k * batch_size + rows
        filled = examples.gather(np.minimum(positions, len(examples) - 1))
        return {**filled, 'index': positions, 'mask': positions < len(examples)}

    dataset = grain.MapDataset.range(math.ceil(len(examples) / batch_size)).map(batch)
    return iter(dataset.to_iter_dataset(READ_OPTIONS))


def own_rows(batch_size: int, process_index: int, process_count: int) -> Int[np.ndarray, 'rows']:
    """The rows of a batch that one process reads."""
    if batch_size < 1 or batch_size % process_count:
        raise DataError(
            f'batch_size is {batch_size}; a positive multiple of the number of processes, '
            f'{process_count}, needed'
        )
    size = batch_size // process_count
    return np.arange(process_index * size, (process_index + 1) * size)


def _drawn(k: int, batch_size: int, length: int, seed: int) -> Int[np.ndarray, 'b']:
    """The images of batch k with replacement, on every machine and for good.

    As of 64 bits all are used, no image is likelier than another by more than length / 2^64.
    """
    key = np.array([seed % 2**64, k], np.uint64)
    bits = np.random.Philox(key=key).random_raw(batch_size)
    return (bits % np.uint64(length)).astype(np.int64)


def _shuffled(positions: Int[np.ndarray, 'b'], length: int, seed: int) -> Int[np.ndarray, 'b']:
    """The images at ascending positions of the endless sequence.

    Looked up in whole permutations: grain's shuffle finds one index at a time, in 15 microseconds.
    """
    epochs, offsets = np.divmod(positions, length)
    visited = range(int(epochs[0]), int(epochs[-1]) + 1)
    orders = [permutation(length, seed, epoch)[offsets[epochs == epoch]] for epoch in visited]
    return np.concatenate(orders)

"""Batches: what each step sees, whoever reads it, and that evaluation sees everything once."""

import itertools
import math

import numpy as np
import pytest

from datasets import batching, loading
from datasets.sources import DataError
from tests.support.numbered import SHAPE, numbered_images, numbers


def test_iterators_that_start_later_yield_what_the_first_yields_there():
    images = numbered_images(50)
    stream = batching.stream(images, 8, seed=3)
    first = list(itertools.islice(batching.batches(images, 8, seed=3), 30))
    for start in [0, 1, 6, 17]:
        later = itertools.islice(batching.batches(images, 8, seed=3, start_step=start), 30 - start)
        assert numbers(later) == numbers(first[start:])
    for step in [29, 0, 6]:
        assert numbers([batching.batch_at(stream, step)]) == numbers([first[step]])
        np.testing.assert_array_equal(
            batching.batch_at(stream, step)['label'], numbers([first[step]])
        )


@pytest.mark.parametrize('batch_size', [1, 7, 10, 49, 50])
def test_every_epoch_has_each_image_once_in_an_order_of_its_own(batch_size):
    images = numbered_images(50)
    order = numbers(itertools.islice(batching.batches(images, batch_size, seed=0), 250))
    epochs = [order[i : i + 50] for i in range(0, 250, 50)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_orders_depend_on_the_seed_and_never_change():
    # A change of these would change what runs see that are started again.
    for seed, epoch, order in [(0, 0, '0291854367'), (0, 1, '5378241069'), (1, 0, '3529708614')]:
        assert loading.permutation(10, seed, epoch).tolist() == [int(i) for i in order]


def test_permutations_are_uniform():
    length, trials = 8, 4000
    permutations = np.stack([loading.permutation(length, 7, i) for i in range(trials)])
    counts = np.stack([np.bincount(column, minlength=length) for column in permutations.T])
    # Each of the 64 counts is binomial; 5 standard deviations for the largest deviation.
    sigma = np.sqrt(trials * (1 / length) * (1 - 1 / length))
    assert np.abs(counts - trials / length).max() < 5 * sigma


def test_with_replacement_every_row_is_any_image_whatever_the_others_are():
    stream = batching.stream(numbered_images(5), 4, seed=3, replacement=True)
    rows = np.array([stream[k]['label'] for k in range(2000)])
    # Counts are binomial; 5 standard deviations for the largest of those of single images, and of
    # pairs of rows.
    for share, found in (
        (1 / 5, np.bincount(rows.ravel()) / rows.size),
        (1 / 25, np.bincount(5 * rows[:, 0] + rows[:, 1]) / len(rows)),
        (1 / 25, np.bincount(5 * rows[:-1, 0] + rows[1:, 0]) / (len(rows) - 1)),
    ):
        assert len(found) == 1 / share
        assert np.abs(found - share).max() < 5 * np.sqrt(share / len(rows))


def test_batches_with_replacement_depend_on_seed_and_step_and_never_change():
    # A change of these would change what runs see that are started again.
    images = numbered_images(10)
    for seed, step, rows in [(0, 0, '9896357650'), (0, 1, '8134702973'), (1, 0, '7586438519')]:
        stream = batching.stream(images, 10, seed, replacement=True)
        assert ''.join(map(str, stream[step]['label'])) == rows
    later = batching.batches(images, 10, 0, start_step=1, replacement=True)
    first = batching.batches(images, 10, 0, replacement=True)
    assert numbers(itertools.islice(later, 3)) == numbers(itertools.islice(first, 4))[10:]


@pytest.mark.parametrize('replacement', [False, True])
@pytest.mark.parametrize('process_count', [2, 3])
def test_the_slices_of_processes_are_the_batch(process_count, replacement):
    images = numbered_images(31)
    whole = batching.stream(images, 12, 5, replacement=replacement)
    slices = [
        batching.stream(images, 12, 5, i, process_count, replacement) for i in range(process_count)
    ]
    for step in range(8):
        parts = [batching.batch_at(part, step) for part in slices]
        assert numbers(parts) == numbers([batching.batch_at(whole, step)])
        assert {len(part['label']) for part in parts} == {12 // process_count}


@pytest.mark.parametrize('batch_size', [4, 6, 24, 32])
@pytest.mark.parametrize('process_count', [1, 2])
def test_an_epoch_counts_every_image_once_in_batches_of_one_shape(batch_size, process_count):
    images = numbered_images(24)
    counted = []
    for process in range(process_count):
        batches = list(batching.epoch(images, batch_size, process, process_count))
        # Of all processes, or they would wait for ever.
        assert len(batches) == math.ceil(24 / batch_size)
        for batch in batches:
            assert batch['image'].shape == (batch_size // process_count, *SHAPE, 1)
            assert batch['mask'].dtype == bool
            counted += batch['label'][batch['mask']].tolist()
            assert (batch['label'][~batch['mask']] == 23).all()
    assert sorted(counted) == list(range(24))
    if process_count == 1:
        assert counted == list(range(24))


def test_impossible_batches_are_refused():
    images = numbered_images(10)
    with pytest.raises(DataError, match='batch_size is 11, more than all 10 examples'):
        batching.batches(images, 11, seed=0)
    with pytest.raises(DataError, match=r'batch_size is 9; .* number of processes, 2'):
        batching.epoch(images, 9, 0, 2)
    with pytest.raises(DataError, match='batch_size is 0; a positive'):
        batching.stream(images, 0, seed=0)

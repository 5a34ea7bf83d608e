"""Fingerprints: the same for the same data, others for others."""

import numpy as np
import pytest
from PIL import Image

from datasets import identity, loading
from tests.support.numbered import numbered, numbered_images

RNG = np.random.default_rng(0)


def folder(path, num=12):
    for i in range(num):
        pixels = RNG.integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(path / f'{i}.bmp')
    return f'folder:{path}'


def of(source, split='test', size=(8, 8), **options):
    return loading.load(source, split, size, 1, 0.4, **options).fingerprint


def test_the_same_data_have_the_same_fingerprint(tmp_path):
    for source in ('digits', folder(tmp_path)):
        assert of(source) == of(source)
        assert of(source) != of(source, 'train')


def test_a_file_of_the_same_name_and_size_counts(tmp_path):
    source = folder(tmp_path)
    before = of(source, 'train'), of(source, 'test')
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / '3.bmp')
    after = of(source, 'train'), of(source, 'test')
    # It is in one of the splits.
    assert sum(a == b for a, b in zip(before, after, strict=True)) == 1


def test_names_count_and_the_place_of_the_folder_does_not(tmp_path):
    (tmp_path / 'a').mkdir()
    source = folder(tmp_path / 'a')
    before = of(source)
    (tmp_path / 'a').rename(tmp_path / 'b')
    assert of(f'folder:{tmp_path / "b"}') == before


@pytest.mark.parametrize('size', [(4, 6), (8, 8)], ids=['stored', 'scaled'])
@pytest.mark.parametrize('what', ['images', 'labels'])
def test_arrays_count_to_the_last_number(tmp_path, size, what):
    arrays = {'images': numbered(20), 'labels': np.arange(20)}
    prints = []
    for i in range(2):
        arrays[what][..., 0] += i
        np.savez(tmp_path / f'{i}.npz', **arrays)
        source = f'npz:{tmp_path / f"{i}.npz"}'
        prints.append([of(source, split, size) for split in ('train', 'test')])
    assert prints[0] != prints[1]


def test_large_arrays_are_looked_at_in_parts(monkeypatch):
    monkeypatch.setattr(identity, 'WHOLE_BYTES', 100)
    rows = np.zeros((20, 10), np.uint8)
    first, other = rows.copy(), rows.copy()
    first[18, 0], other[19, 0] = 1, 1
    assert identity.of_arrays(rows) == identity.of_arrays(other) != identity.of_arrays(first)


def test_data_that_say_nothing_of_themselves_are_read():
    class Vectors:
        def __init__(self, scale):
            self._scale = scale

        def __len__(self):
            return 1000

        def gather(self, indices):
            return {'x': self._scale * indices[:, None].astype(np.float32)}

    assert identity.fingerprint(Vectors(1)) == identity.fingerprint(Vectors(1))
    assert identity.fingerprint(Vectors(1)) != identity.fingerprint(Vectors(2))


def test_images_know_their_own():
    assert identity.fingerprint(numbered_images(5)) == numbered_images(5).fingerprint

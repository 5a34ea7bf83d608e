"""The line that says what a source was found to hold."""

import numpy as np
import pytest
from PIL import Image

from datasets import image_files, loading
from datasets.classes import Classes, listed
from tests.support.numbered import SHAPE, everything, numbered


def said(source, split='train', size=(8, 8)):
    return loading.load(source, split, size, 1, 0.25).found()


def save(path, number=0, size=(8, 8), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', size, number).save(path, **options)


@pytest.fixture
def photos(tmp_path):
    """Three classes in the formats that people have, and other files."""
    for i, name in enumerate(
        ['cats/0.png', 'cats/1.TIFF', 'cats/2.tif', 'dogs/3.gif', 'dogs/4.jpg', 'owls/5.webp']
    ):
        save(tmp_path / name, 40 * i, (20 + i, 30 - i))
    for name in ('cats/0.heic', 'notes.txt', 'cats/README', 'dogs/other.TXT', '.DS_Store'):
        (tmp_path / name).write_text('no image')
    return tmp_path


def test_images_sizes_splits_classes_and_what_was_skipped(photos):
    lines = {said(f'folder:{photos}', split) for split in loading.SPLITS}
    num_test = len(loading.load(f'folder:{photos}', 'test', (8, 8), 1, 0.25))
    assert lines == {
        f'folder:{photos}: 6 images of 30x20 to 25x25 pixels '
        f'({6 - num_test} train, {num_test} test), 3 classes: cats (3), dogs (2), owls (1); '
        '4 files of other types skipped: .heic, .txt, without an ending'
    }


def test_both_splits_count(tmp_path):
    for name in ('train/a/0', 'train/b/1', 'test/b/2', 'test/3'):
        save(tmp_path / f'{name}.png')
    assert said(f'folder:{tmp_path}') == said(f'folder:{tmp_path}', 'test')
    assert said(f'folder:{tmp_path}').endswith(
        '4 images of 8x8 pixels (2 train, 2 test), 2 classes: a (1), b (2), 1 without a class'
    )


def test_a_folder_without_classes(tmp_path):
    for i in range(4):
        save(tmp_path / f'{i}.png')
    assert said(f'folder:{tmp_path}').endswith('test), no classes')


@pytest.mark.parametrize('split', loading.SPLITS)
def test_the_splits_and_the_names_of_arrays(tmp_path, split):
    np.savez(
        tmp_path / 'x.npz',
        train_images=numbered(5),
        train_labels=np.array([0, 1, 1, 2, 2]),
        test_images=numbered(2),
        test_labels=np.array([2, 0]),
        class_names=np.array(['red', 'green', 'blue']),
    )
    assert said(f'npz:{tmp_path / "x.npz"}', split, SHAPE) == (
        f'npz:{tmp_path / "x.npz"}: 7 images of 4x6 pixels (5 train, 2 test), '
        '3 classes: red (2), green (2), blue (3)'
    )


def test_many_classes_are_shortened():
    names = tuple(f'c{i}' for i in range(1000))
    line = listed(Classes(names))
    assert line.startswith('1,000 classes: c0, c1, ')
    assert line.endswith('c9 and 990 more')
    assert listed(Classes((), (0, 3, 1))) == '2 classes: 1 (3), 2 (1)'
    assert listed(Classes(('cat',), (3,))) == '1 class: cat (3)'


# Formats


@pytest.mark.parametrize('extension', ['tif', 'tiff', 'gif', 'GIF'])
@pytest.mark.parametrize('limit', [image_files.VERIFY_BYTES, -1], ids=['small', 'large'])
def test_of_several_frames_the_first_is_read(tmp_path, monkeypatch, extension, limit):
    monkeypatch.setattr(image_files, 'VERIFY_BYTES', limit)
    others = [Image.new('L', (8, 8), 200)]
    for i in (10, 20):
        save(tmp_path / f'{i}.{extension}', i, save_all=True, append_images=others)
    found = [
        everything(loading.load(f'folder:{tmp_path}', split, (8, 8), 1)) for split in loading.SPLITS
    ]
    assert sorted(int(part['image'].max()) for part in found) == [10, 20]


@pytest.mark.parametrize('extension', ['tif', 'gif'])
@pytest.mark.parametrize('limit', [image_files.VERIFY_BYTES, -1], ids=['small', 'large'])
def test_files_of_these_formats_that_are_cut_short_are_named(
    tmp_path, monkeypatch, extension, limit
):
    monkeypatch.setattr(image_files, 'VERIFY_BYTES', limit)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8)
    for i in range(3):
        Image.fromarray(pixels).save(tmp_path / f'{i}.{extension}')
    path = tmp_path / f'1.{extension}'
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(loading.DataError, match=rf'1\.{extension} is not an image that can be'):
        said(f'folder:{tmp_path}')


def test_of_large_folders_whole_tiff_files_are_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, 'VERIFY_BYTES', -1)
    for i, compression in enumerate([None, 'tiff_lzw', 'jpeg', 'tiff_deflate']):
        save(tmp_path / f'{i}.tif', 40 * i, (300, 200), compression=compression)
    save(tmp_path / '9.gif', 90)
    monkeypatch.setattr(image_files, 'decode', None)
    assert '5 images' in said(f'folder:{tmp_path}')

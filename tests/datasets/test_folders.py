"""Folders: which layouts are splits and which are classes, links, and splits that stay."""

import os

import numpy as np
import pytest
from PIL import Image

from datasets import folders, identity, loading
from datasets.image_files import ImageFile
from datasets.sizes import MAX_PIXELS
from datasets.stored import SPLITS, DataError
from tests.support.numbered import everything, numbers

TWO_CLASSES = ('a/0', 'a/1', 'b/2', 'b/3')


def make(path, *names):
    """Images of the numbers that they are called."""
    for name in names:
        file = path / f'{name}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), int(file.stem), np.uint8)).save(file)
    return f'folder:{path}'


def found(source, fraction=0.3):
    """Of each split, the labels by the numbers of the images."""
    parts = [everything(loading.load(source, split, (8, 8), 1, fraction)) for split in SPLITS]
    return [dict(zip(numbers([part]), part['label'].tolist(), strict=True)) for part in parts]


# Layouts


@pytest.mark.parametrize(
    ('train', 'test'),
    [
        ('train', 'val'),
        ('training', 'testing'),
        ('Train', 'Test'),
        ('TRAIN', 'Validation'),
        ('train', 'valid'),
        ('training_set', 'test_set'),
        ('train2017', 'val2017'),
        ('train-images', 'test images'),
    ],
)
def test_names_of_splits_are_no_classes(tmp_path, train, test):
    names = [f'{train}/{name}' for name in TWO_CLASSES] + [f'{test}/b/4', f'{test}/a/5']
    assert found(make(tmp_path, *names)) == [{0: 0, 1: 0, 2: 1, 3: 1}, {4: 1, 5: 0}]


def test_of_train_alone_a_part_is_held_out(tmp_path):
    train, test = found(make(tmp_path, *(f'train/{name}' for name in TWO_CLASSES)))
    assert train | test == {0: 0, 1: 0, 2: 1, 3: 1}
    assert train
    assert test
    assert not train.keys() & test.keys()


def test_validation_images_beside_a_test_split_are_left_out_and_that_is_said(tmp_path, capsys):
    source = make(tmp_path, 'train/a/0', 'val/a/1', 'test/a/2', 'plots/3', '4')
    assert found(source) == [{0: 0}, {2: 0}]
    said = capsys.readouterr().out
    assert said == (
        f'data.source {source}: train is train/ and test is test/; left out: plots/, val/ and '
        '1 images beside the folders\n'
    )


def test_test_images_without_classes_give_way_to_validation_images_that_have_them(tmp_path, capsys):
    """ImageNet's test images have no labels."""
    source = make(tmp_path, 'train/a/0', 'train/b/1', 'val/b/2', 'test/3')
    assert found(source) == [{0: 0, 1: 1}, {2: 1}]
    assert 'test is val/; left out: test/' in capsys.readouterr().out


def test_folders_that_hold_one_folder_alone_are_gone_into(tmp_path):
    names = [f'archive/photos/training_set/training_set/{name}' for name in TWO_CLASSES]
    source = make(tmp_path, *names, 'archive/photos/test_set/test_set/b/4')
    assert found(source) == [{0: 0, 1: 0, 2: 1, 3: 1}, {4: 1}]


def test_a_class_may_be_called_train(tmp_path):
    train, test = found(make(tmp_path, 'bus/0', 'car/1', 'train/2', 'train/3'))
    assert train | test == {0: 0, 1: 1, 2: 2, 3: 2}


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['train/0', 'Train/1'], 'has the folders Train/, train/, and which of them is the train'),
        (['train/0', 'val/1', 'validation/2'], 'val/, validation/, and which .* is the val split'),
        (['train2014/a/0', 'train2017/a/1'], 'train2014/, train2017/, and which'),
        (['train/a/0', 'extra/b/1', 'more/2'], 'train/ may be a split, and may be a class, as ex'),
        (['train/0', 'extra/1'], 'train/ may be a split, and may be a class, as extra/ beside'),
        (['a/train/0', 'a/test/1', 'b/train/2'], 'test/, train/ lie within the folders of classes'),
        (['test/0', 'val/1'], 'a folder of test images, and none named train'),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, names, message):
    with pytest.raises(DataError, match=message) as error:
        loading.load(make(tmp_path, *names), 'train', (8, 8), 1)
    assert '\n' not in str(error.value)


# What is held out


def test_what_is_held_out_stays_so_whatever_is_added(tmp_path):
    source = make(tmp_path, *(f'{i:03d}' for i in range(60, 160)))
    train, test = found(source, 0.2)
    # Binomial: within 4 standard deviations of sqrt(100 * 0.2 * 0.8).
    assert abs(len(test) - 20) <= 16
    make(tmp_path, *(f'{i:03d}' for i in range(60)))
    more_train, more_test = found(source, 0.2)
    assert train.keys() <= more_train.keys()
    assert test.keys() <= more_test.keys()
    assert len(more_train) + len(more_test) == 160


def test_what_is_held_out_of_one_class_stays_so_if_another_one_is_added(tmp_path):
    source = make(tmp_path, *(f'a/{i}' for i in range(40)))
    _, test = found(source)
    make(tmp_path, *(f'b/{i}' for i in range(40, 60)))
    train, more_test = found(source)
    assert set(test.values()) == {-1}
    assert test.keys() == {i for i, label in more_test.items() if label == 0}
    assert set(train.values()) == {0, 1}


@pytest.mark.parametrize('fraction', [0.001, 0.999])
def test_both_splits_have_an_image(tmp_path, fraction):
    train, test = found(make(tmp_path, *map(str, range(5))), fraction)
    assert min(len(train), len(test)) == 1


def test_one_image_is_too_few(tmp_path):
    with pytest.raises(DataError, match='test split of 0 of 1 images'):
        found(make(tmp_path, '0'), 0.1)


def test_accents_are_the_same_however_they_are_stored():
    assert folders.place('\u00e9/0.png') == folders.place('e\u0301/0.png')


# Links


def test_links_in_a_circle_end_and_every_image_is_there_once(tmp_path, capsys):
    source = make(tmp_path, *(f'{i}' for i in range(30)))
    for name in ('all', 'again'):
        (tmp_path / name).symlink_to('.')
    train, test = found(source)
    assert sorted([*train, *test]) == list(range(30))
    assert set(train.values()) | set(test.values()) == {-1}
    assert not capsys.readouterr().out


def test_folders_that_hold_links_to_each_other_have_every_image_once(tmp_path, capsys):
    source = make(tmp_path, 'a/0', 'a/1', 'b/2', 'c/d/3')
    for place, target in (('a/x', 'b'), ('b/y', 'a'), ('c/d/z', 'c'), ('c/up', '.')):
        (tmp_path / place).symlink_to(tmp_path / target)
    train, test = found(source)
    assert sorted([*train, *test]) == [0, 1, 2, 3]
    assert 'paths lead to the same files as others, and are left out' in capsys.readouterr().out


def test_splits_share_no_image_by_links_or_hard_links(tmp_path):
    source = make(tmp_path, *(f'train/{i}' for i in range(4)), 'test/9')
    os.link(tmp_path / 'train/0.png', tmp_path / 'test/0.png')
    (tmp_path / 'test/1.png').symlink_to('../train/1.png')
    assert [sorted(part) for part in found(source)] == [[2, 3], [0, 1, 9]]


def test_splits_may_be_links_to_what_lies_beside_them(tmp_path):
    source = make(tmp_path, 'pool/x/0', 'pool/x/1', 'pool/y/2')
    (tmp_path / 'train').symlink_to('pool/x')
    (tmp_path / 'test').symlink_to('pool/y')
    assert [sorted(part) for part in found(source)] == [[0, 1], [2]]


def test_a_split_of_links_to_the_other_one_is_refused(tmp_path):
    source = make(tmp_path, 'test/0', 'test/1')
    (tmp_path / 'train').symlink_to('test')
    with pytest.raises(DataError, match='all images of the train split are links to those of the'):
        found(source)


# Fingerprints


def test_the_fingerprint_of_a_folder_of_classes_stays_that_of_its_files(tmp_path):
    """The workdirs of older runs hold it."""
    make(tmp_path, *TWO_CLASSES)
    stored = folders.find(str(tmp_path), 'train', MAX_PIXELS)
    files = []
    for name in (f'{name}.png' for name in TWO_CLASSES):
        path = tmp_path / name
        files.append(ImageFile(str(path), name, (), path.stat().st_size, 0, path))
    assert stored.fingerprint(np.arange(4)) == identity.of_files(files)


# Paths


def test_paths_may_begin_with_a_tilde(tmp_path, monkeypatch):
    make(tmp_path / 'photos', *map(str, range(4)))
    monkeypatch.setenv('HOME', str(tmp_path))
    train, test = found('folder:~/photos')
    assert len(train) + len(test) == 4

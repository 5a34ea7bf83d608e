"""Labels that a network with classes cannot use are refused, of a whole split and in one line."""

import dataclasses
import re

import numpy as np
import pytest

from choices import InputError
from datasets import loading
from experiments import kinds, labels, reading
from tests import tiny_classes, tiny_classifier, tiny_config
from tests.support.numbered import numbered


def images(values):
    return loading.from_arrays(numbered(len(values))[..., None], np.array(values))


def checked(values, num_classes):
    return labels.checked(images(values), 'train', 'npz:x.npz', num_classes)


def test_labels_of_all_classes_pass_in_silence(capsys):
    assert len(checked([0, 1, 2, 2], 3)) == 4
    assert not capsys.readouterr().out


def test_a_class_without_images_is_told(capsys):
    checked([0, 2, 2], 5)
    assert 'model.num_classes: 5, and no images of the train split of data.source' in (
        said := capsys.readouterr().out
    )
    assert said.endswith('are of the classes 1, 3, 4\n')


@pytest.mark.parametrize(
    ('values', 'why'),
    [
        ([-1, -1, -1], '3 of 3 images of the train split .* have no label; labels from 0 to 3 ne'),
        ([0] * 250 + [-1], '1 of 251 images .* have no label'),
        ([0] * 250 + [4, 9], '2 of 252 images .* have labels from 4 to 9; labels from 0 to 3'),
    ],
)
def test_labels_are_those_of_the_whole_split(values, why):
    with pytest.raises(InputError, match=f'model.num_classes: 4, and {why}') as error:
        checked(values, 4)
    assert '\n' not in str(error.value)


def named(values, *names):
    return dataclasses.replace(images(values), class_names=names)


def test_the_classes_are_named():
    with pytest.raises(InputError, match=r'they have 3 classes: cat \(2\), dog \(1\), owl \(1\)$'):
        labels.checked(named([0, 0, 1, 2], 'cat', 'dog', 'owl'), 'train', 'x', 2)
    with pytest.raises(InputError, match='they have no classes$'):
        checked([-1, -1], 2)


def test_a_class_without_images_is_told_by_its_name(capsys):
    labels.checked(named([0, 2], 'cat', 'dog', 'owl'), 'train', 'x', 3)
    assert capsys.readouterr().out.endswith('are of the classes dog\n')


def test_classes_are_counted_by_their_names_where_labels_are_in_the_examples():
    """However many of the first images are of the first classes."""
    unknown = dataclasses.replace(named([0] * 300, 'cat', 'dog', 'owl'), labels=None)
    with pytest.raises(InputError, match="2, and data.source 'x' has 3 classes: cat, dog, owl"):
        labels.checked(unknown, 'train', 'x', 2)


def test_labels_that_are_in_the_examples_are_checked_as_these_are_read(monkeypatch):
    unknown = dataclasses.replace(images([0] * 200 + [7]), labels=None)
    with pytest.raises(InputError, match='have labels from 7 to 7'):
        labels.checked(unknown, 'train', 'source', 4)
    beyond = dataclasses.replace(images([0, 7] + [0] * 254), labels=None)
    monkeypatch.setattr(labels, 'LOOKED_AT', 3)
    found = labels.checked(beyond, 'train', 'source', 4)
    assert len(found.gather(np.array([0, 2]))['label']) == 2
    with pytest.raises(InputError, match='1 of 2 images .* have labels from 7 to 7'):
        found.gather(np.array([0, 1]))


@pytest.mark.parametrize('file', [tiny_classes, tiny_classifier])
@pytest.mark.parametrize('split', ['train', 'test'])
@pytest.mark.parametrize(
    ('values', 'why'), [(np.full(600, -1), 'have no label'), (np.arange(600) // 60, 'from 4 to 9')]
)
def test_every_experiment_that_uses_labels_refuses_them(tmp_path, file, split, values, why):
    """Sorted by class, so that the first ones are of no help."""
    np.savez(tmp_path / 'x.npz', images=np.zeros((600, 8, 8), np.uint8), labels=values)
    config = file.get_config()
    config.data.source = f'npz:{tmp_path / "x.npz"}'
    config.model.num_classes = 4
    with pytest.raises(InputError, match=f'model.num_classes: 4, and .*{re.escape(split)}.*{why}'):
        kinds.create(config).data(split)


@pytest.mark.parametrize(('num_classes', 'said'), [(0, True), (2, False), (None, False)])
def test_classes_that_a_network_is_not_given_are_told(num_classes, said, tmp_path, capsys):
    images, labels = np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) % 2
    path = tmp_path / f'{num_classes}.npz'
    np.savez(path, images=images, labels=labels, class_names=np.array(['cat', 'dog']))
    config = tiny_config.get_config()
    config.data.source = f'npz:{path}'
    reading.load_images(config.data, 'train', num_classes)
    told = capsys.readouterr().out
    assert '2 classes: cat (10), dog (10)' in told
    assert ('; the classes are not used: model.num_classes is 0' in told) == said

"""Any set of images against any other, as a program of its own."""

import numpy as np
import pytest
from PIL import Image

from applications import compare
from evaluation import extractors
from tests import tiny_classifier
from tests.support import random_run


@pytest.fixture(autouse=True)
def jax_has_started(monkeypatch):
    """And cannot be given other devices."""
    monkeypatch.setattr(compare.sharding, 'use_cores', lambda batch_size: None)


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """The workdir of a classifier of images of 8x8 pixels, whose parameters are random."""
    path = tmp_path_factory.mktemp('classifier')
    return random_run.create(path, tiny_classifier.get_config(), 3)


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    """A folder and an .npz file of the same images, others, and what cannot be compared."""
    path = tmp_path_factory.mktemp('sets')
    random = np.random.default_rng(0)
    for name, num, side in (('first', 30, 8), ('others', 40, 8), ('few', 3, 8), ('larger', 12, 9)):
        images = random.integers(0, 256, (num, side, side), np.uint8)
        if name == 'others':
            images //= 8
        (path / name).mkdir()
        np.savez(path / f'{name}.npz', images=images)
        for i, image in enumerate(images):
            Image.fromarray(image).save(path / name / f'{i:06d}.png')
    return path


def table(capsys, *arguments):
    """The numbers by their names."""
    compare.main([str(argument) for argument in arguments])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if is_of_table(line)]
    return {row[0]: float(row[1].replace(',', '')) for row in rows}


def is_of_table(line):
    """Not of the lines before it."""
    return '...' not in line and not line.startswith(('IMAGES ', 'REFERENCE '))


def test_a_set_is_at_no_distance_from_itself_however_it_is_stored(classifier, sets, capsys):
    by = f'--classifier={classifier}'
    same = table(capsys, sets / 'first', sets / 'first.npz', by)
    assert same['fd_classifier'] == pytest.approx(0, abs=1e-6)
    assert same['precision_classifier'] == same['recall_classifier'] == 1
    other = table(capsys, sets / 'first', f'folder:{sets / "others"}', by, '--batch_size=7')
    assert other['fd_images_classifier'] == 30
    assert other['fd_classifier'] > 100 * same['fd_classifier']


def test_what_was_found_is_said_before_the_table(classifier, sets, capsys):
    compare.processes.tell_once.cache_clear()
    compare.main([str(sets / 'others'), f'npz:{sets}/first.npz', f'--classifier={classifier}'])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f'IMAGES folder:{sets}/others: 40 images of 8x8 pixels, no classes',
        f'REFERENCE npz:{sets}/first.npz: 30 images of 8x8 pixels, no classes',
    ]


@pytest.mark.parametrize(
    ('arguments', 'why'),
    [
        ('{}/first {}/none', "REFERENCE: data.source '{}/none' is unknown"),
        ('{}/few {}/first', 'IMAGES: 3 images; at least 10 needed'),
        ('{}/first {}/larger', 'REFERENCE: {}/larger/000000.png has 9x9 pixels; 8x8 needed'),
        ('{}/first {}/first --batch_size=0', '--batch_size: 0; a number of at least 1 needed'),
        ('{}/first {}/first --classifier={}', '--classifier: {} has no config.json'),
        ('{}/first {}/first --inception=', '--inception: None, and no INCEPTION_WEIGHTS'),
        ('{}/first {}/first --inception={}/w.pth', '--inception: {}/w.pth: there is no such file'),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    arguments, why, classifier, sets, monkeypatch
):
    monkeypatch.delenv(extractors.INCEPTION_VARIABLE, raising=False)
    given = arguments.replace('{}', str(sets)).split()
    if not any(argument.startswith(('--classifier', '--inception')) for argument in given):
        given.append(f'--classifier={classifier}')
    with pytest.raises(SystemExit) as ended:
        compare.main(given)
    assert ended.value.code.startswith('error: ' + why.replace('{}', str(sets)))
    assert len(ended.value.code.splitlines()) == 1

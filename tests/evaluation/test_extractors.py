"""Networks that features come from: what is refused, and that features are those of the network."""

import hashlib
import types

import jax
import numpy as np
import pytest

from choices import InputError
from devices import sharding
from evaluation import extractors
from models import inception
from tests import tiny_classifier
from tests.support import golden, inception_reference, random_run, torch_writer


def create(name, shape=(8, 8, 1), classifier_workdir=None, inception_weights=None):
    fields = types.SimpleNamespace(
        classifier_workdir=classifier_workdir, inception_weights=inception_weights
    )
    return extractors.create(name, fields, shape, sharding.create_mesh())


@pytest.fixture(scope='module')
def classifier_workdir(tmp_path_factory):
    """A run of a classifier whose parameters are random."""
    workdir = tmp_path_factory.mktemp('classifier')
    return random_run.create(workdir, tiny_classifier.get_config(), 3)


# The classifier


def test_features_are_the_layer_before_the_logits(classifier_workdir):
    by = create('classifier', classifier_workdir=str(classifier_workdir))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    features, logits = by.run(by.params, pixels)
    head = by.params['Dense_2']
    assert features.shape == (4, 64)
    np.testing.assert_allclose(features @ head['kernel'] + head['bias'], logits, rtol=1e-5)
    assert np.std(features, axis=0).max() > 1e-3


def test_the_same_classifier_has_the_same_fingerprint(classifier_workdir):
    first, second = (
        create('classifier', classifier_workdir=str(classifier_workdir)) for _ in range(2)
    )
    assert first.fingerprint == second.fingerprint


def test_what_is_no_classifier_of_these_images_is_refused(classifier_workdir, tmp_path):
    with pytest.raises(InputError, match='eval.classifier_workdir: None; a classifier is needed'):
        create('classifier')
    with pytest.raises(InputError, match='eval.classifier_workdir: .* has no config.json'):
        create('classifier', classifier_workdir=str(tmp_path))
    with pytest.raises(InputError, match='classifies images of 8x8x1, and those .* 28x28x1'):
        create('classifier', (28, 28, 1), classifier_workdir=str(classifier_workdir))
    (tmp_path / 'config.json').write_text((classifier_workdir / 'config.json').read_text())
    with pytest.raises(InputError, match='eval.classifier_workdir: .* has no checkpoint yet'):
        create('classifier', classifier_workdir=str(tmp_path))


# Inception


def test_missing_weights_are_asked_for_in_one_line(monkeypatch, tmp_path):
    monkeypatch.delenv('INCEPTION_WEIGHTS', raising=False)
    with pytest.raises(InputError, match='eval.inception_weights: .*6726825d.pth') as error:
        create('inception')
    assert 'INCEPTION_WEIGHTS' in str(error.value)
    assert '\n' not in str(error.value)
    monkeypatch.setenv('INCEPTION_WEIGHTS', str(tmp_path / 'none.pth'))
    with pytest.raises(InputError, match='none.pth: there is no such file'):
        create('inception')


def test_another_file_is_refused_by_its_checksum():
    with pytest.raises(InputError, match='its SHA-256 begins with .* another file, or damaged'):
        create('inception', inception_weights=str(golden.DATA / 'torch_layouts.pth'))


def test_broken_files_are_refused(tmp_path):
    (tmp_path / 'a.npz').write_bytes(b'PK')
    np.savez(tmp_path / 'b.npz', a=1)
    for name, why in (('a', 'a.npz: '), ('b', 'b.npz: .* is missing')):
        with pytest.raises(InputError, match=f'eval.inception_weights: .*{why}'):
            create('inception', inception_weights=str(tmp_path / f'{name}.npz'))


@pytest.mark.parametrize('kind', ['npz', 'pth'])
def test_weights_are_read_from_either_kind_of_file(kind, tmp_path, monkeypatch):
    """Arrays of the right names, and of few values: what they become is tested elsewhere."""
    shapes = inception_reference.recorded()[0]
    state = {
        name: np.full(shape, len(name) / 10, np.float32) if shape else np.float32(0)
        for name, shape in shapes.items()
    }
    path = tmp_path / f'weights.{kind}'
    if kind == 'npz':
        np.savez(path, **state)
    else:
        saved = {name: array for name, array in state.items() if array.shape}
        torch_writer.write(path, saved)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(extractors, 'INCEPTION_SHA256', sha256[:8])
    expected = inception.from_torch(state)
    jax.tree.map(np.testing.assert_array_equal, extractors.read_inception(path), expected)


def test_grey_images_are_shown_in_three_channels():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 1), dtype=np.uint8)
    np.testing.assert_array_equal(extractors._as_rgb(pixels), pixels.repeat(3, -1))

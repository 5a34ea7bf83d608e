"""Networks that features come from: files of weights, what is refused, and fingerprints."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from choices import ArgumentError
from devices import sharding
from evaluation import extractors
from evaluation.extractors import Network
from models import inception
from tests.support import golden, inception_reference, torch_writer

SHAPE = (8, 8, 1)


def linear(params, pixels):
    features = pixels.reshape(len(pixels), -1) @ params['kernel']
    return features, features + params['bias']


LINEAR = Network(
    'linear',
    {'kernel': np.ones((64, 3), np.float32), 'bias': np.float32([0, 1, 2])},
    linear,
    'pixels as they are',
)


def fingerprint(**fields):
    network = dataclasses.replace(LINEAR, **fields)
    return extractors.create(network, sharding.create_mesh()).fingerprint


def test_an_extractor_is_its_network_on_the_devices():
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    found = extractors.create(LINEAR, sharding.create_mesh())
    for array, expected in zip(
        found.run(found.params, pixels), linear(LINEAR.params, pixels), strict=True
    ):
        np.testing.assert_allclose(array, expected, rtol=1e-6)
    assert (found.name, found.has_own_names) == ('linear', False)


def test_a_fingerprint_changes_with_parameters_and_preprocessing_and_nothing_else():
    changed = {**LINEAR.params, 'bias': np.float32([0, 1, np.nextafter(np.float32(2), 3)])}
    swapped = {'kernel_': LINEAR.params['kernel'], 'bias': LINEAR.params['bias']}
    others = [
        fingerprint(params=changed),
        fingerprint(params=swapped),
        fingerprint(preprocessing='pixels in [-1, 1]'),
    ]
    assert len({fingerprint(), *others}) == 4
    on_devices = jax.tree.map(jnp.asarray, LINEAR.params)
    assert fingerprint(params=on_devices, name='another') == fingerprint()


# Inception


def test_missing_weights_are_asked_for_in_one_line(monkeypatch, tmp_path):
    monkeypatch.delenv('INCEPTION_WEIGHTS', raising=False)
    with pytest.raises(ArgumentError, match='^inception_weights: .*6726825d.pth') as error:
        extractors.load_inception(None, SHAPE)
    assert 'INCEPTION_WEIGHTS' in str(error.value)
    assert '\n' not in str(error.value)
    monkeypatch.setenv('INCEPTION_WEIGHTS', str(tmp_path / 'none.pth'))
    with pytest.raises(ArgumentError, match='none.pth: there is no such file'):
        extractors.load_inception(None, SHAPE)


def test_images_of_two_channels_are_refused():
    with pytest.raises(ArgumentError, match='^channels: 2; Inception takes grey or RGB images'):
        extractors.load_inception('none.pth', (8, 8, 2))


def test_another_file_is_refused_by_its_checksum():
    with pytest.raises(ArgumentError, match='its SHA-256 begins with .* another file, or damaged'):
        extractors.load_inception(str(golden.DATA / 'torch_layouts.pth'), SHAPE)


def test_broken_files_are_refused(tmp_path):
    (tmp_path / 'a.npz').write_bytes(b'PK')
    np.savez(tmp_path / 'b.npz', a=1)
    for name, why in (('a', 'a.npz: '), ('b', 'b.npz: .* is missing')):
        with pytest.raises(ArgumentError, match=f'^inception_weights: .*{why}'):
            extractors.load_inception(str(tmp_path / f'{name}.npz'), SHAPE)


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

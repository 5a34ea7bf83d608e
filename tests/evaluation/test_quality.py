"""Samples against data: statistics whatever the batch, names of measures, caches, and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from choices import ArgumentError
from datasets import loading
from devices import sharding
from evaluation import distances, quality
from evaluation.extractors import Extractor
from evaluation.quantities import HIGHER, LOWER

SHAPE = (4, 4, 1)
MESH = sharding.create_mesh()


def extractor(scale=1.0):
    """Features are some of the pixels."""

    def run(scale, pixels):
        x = scale * pixels.reshape(len(pixels), -1) / 255
        return x[:, :6], x[:, 6:]

    return Extractor('classifier', jnp.float32(scale), jax.jit(run), f'pixels {scale}', False)


def by_label(found):
    return {quantity.label: quantity for quantity in found}


def random_images(seed, num):
    return np.random.default_rng(seed).integers(0, 256, (num, *SHAPE), dtype=np.uint8)


@pytest.fixture
def judge(tmp_path):
    return quality.Quality(
        networks=[extractor()],
        reference=loading.from_arrays(random_images(0, 50)),
        other=loading.from_arrays(random_images(1, 70)),
        other_name='train',
        batch_size=16,
        max_features=30,
        extrapolate=True,
        cache_dir=tmp_path,
        mesh=MESH,
    )


@pytest.mark.parametrize('batch_size', [1, 16, 50, 64])
def test_every_image_counts_whatever_the_batch_size(batch_size):
    data = loading.from_arrays(random_images(0, 50))
    found = quality.extract(extractor(), data, batch_size, 30, MESH, 'data')
    x = random_images(0, 50).reshape(50, -1) / 255
    assert found.moments.count == 50
    np.testing.assert_allclose(found.moments.mean, x[:, :6].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.moments.covariance, np.cov(x[:, :6].T), atol=1e-7)
    np.testing.assert_allclose(found.features, x[:30, :6], rtol=1e-6)
    np.testing.assert_allclose(found.logits, x[:30, 6:], rtol=1e-6)


def test_measures_are_those_of_the_features_and_say_whose_they_are(judge, tmp_path):
    samples = random_images(2, 40)
    found = by_label(judge.of_samples('pc', samples, tmp_path / 'samples'))
    x, y = (np.float32(a.reshape(len(a), -1)[:, :6]) / 255 for a in (samples, random_images(0, 50)))
    distance = distances.frechet_distance(distances.fit(x), distances.fit(y))
    np.testing.assert_allclose(found['pc_fd_classifier'].value, distance, rtol=1e-5)
    near = distances.neighbours(y[:30], x[:30])
    for name, value in near._asdict().items():
        np.testing.assert_allclose(found[f'pc_{name}_classifier'].value, value, rtol=1e-5)
    assert found['pc_fd_images_classifier'].value == 40
    assert found['pc_fd_infinity_classifier'].value < found['pc_fd_classifier'].value
    assert all(q.by == 'classifier' and 'fid' not in q.name for q in found.values())
    assert found['pc_kd_classifier'].standard_error > 0


def compared(by, num_features=30):
    sets = [
        quality.extract(by, loading.from_arrays(random_images(seed, 40)), 16, 30, MESH, '')
        for seed in (0, 1)
    ]
    return {q.name: q for q in quality.compare(by, *sets, num_features, extrapolate=True)}


def test_distances_are_best_when_small_and_shares_when_large():
    better = {name: quantity.better for name, quantity in compared(extractor()).items()}
    shares = {'precision', 'recall', 'density', 'coverage'}
    assert better == {
        **dict.fromkeys(('fd', 'kd', 'fd_infinity'), LOWER),
        **dict.fromkeys(('fd_images', 'fd_bias'), None),
        **dict.fromkeys({'score', *shares}, HIGHER),
    }


def test_only_distances_by_inception_have_names_of_their_own():
    """Shares say by which network, as all measures by others do."""
    own = dataclasses.replace(extractor(), name='inception', has_own_names=True)
    found = compared(own)
    assert {name for name, q in found.items() if q.by is None} == {
        'fid',
        'fid_images',
        'fid_infinity',
        'fid_bias',
        'kid',
        'inception_score',
    }
    values = [q.value for q in found.values()]
    assert values == [q.value for q in compared(extractor()).values()]


def test_the_floor_is_as_many_images_of_the_other_split(judge, tmp_path):
    found = judge.floor(40)
    assert {quantity.of for quantity in found} == {'train'}
    expected = judge.of_samples('train', random_images(1, 70)[:40], tmp_path / 'samples')
    assert found == expected


def test_features_are_computed_once(judge, tmp_path, monkeypatch):
    first = judge.of_samples('pc', random_images(2, 40), tmp_path / 'samples')
    extracted = []
    extract = quality.extract

    def noted(by, data, *args):
        extracted.append(len(data))
        return extract(by, data, *args)

    monkeypatch.setattr(quality, 'extract', noted)
    assert judge.of_samples('pc', random_images(2, 40), tmp_path / 'samples') == first
    assert extracted == []
    (cached,) = judge.cache_dir.glob('*.npz')
    cached.write_bytes(cached.read_bytes()[:500])  # Damaged: made again.
    assert judge.of_samples('pc', random_images(2, 40), tmp_path / 'samples') == first
    assert extracted == [50]


def test_the_fingerprint_knows_images_network_and_what_is_kept():
    data = loading.from_arrays(random_images(0, 50))
    changed = random_images(0, 50)
    changed[31, 2, 3, 0] ^= 1
    prints = [
        quality.fingerprint(extractor(), data, 30),
        quality.fingerprint(extractor(), loading.from_arrays(changed), 30),
        quality.fingerprint(extractor(), dataclasses.replace(data, length=49), 30),
        quality.fingerprint(extractor(2.0), data, 30),
        quality.fingerprint(extractor(), data, 31),
    ]
    assert len(set(prints)) == 5
    assert (
        quality.fingerprint(extractor(), loading.from_arrays(random_images(0, 50)), 30) == prints[0]
    )


def create(reference='test', num_samples=12, max_features=30, sizes=(50, 70)):
    images = dict(zip(('test', 'train'), sizes, strict=True))
    return quality.create(
        [extractor()],
        lambda split: loading.from_arrays(random_images(0, images[split])),
        num_samples,
        reference=reference,
        batch_size=16,
        max_features=max_features,
        extrapolate=False,
        cache_dir=None,
        mesh=MESH,
    )


def test_the_floor_is_of_the_split_that_is_not_the_reference():
    test, train = create('test'), create('train')
    assert (len(test.reference), len(test.other), test.other_name) == (50, 70, 'train')
    assert (len(train.reference), len(train.other), train.other_name) == (70, 50, 'test')


@pytest.mark.parametrize(
    ('fields', 'why'),
    [
        ({'reference': 'val'}, 'reference: unknown name .val.*train'),
        ({'num_samples': 3}, 'num_samples: 3; eval.quality needs at least 10'),
        ({'max_features': 3}, 'max_features: 3; eval.quality needs at least 10'),
        ({'sizes': (9, 70)}, 'source: images of the test split: 9; eval.quality needs at least 10'),
        ({'sizes': (50, 9)}, 'source: images of the train split: 9; eval.quality needs'),
    ],
)
def test_what_cannot_be_compared_is_refused(fields, why):
    with pytest.raises(ArgumentError, match=f'^{why}'):
        create(**fields)

"""Samples against data: statistics whatever the batch, caches, and the program as users run it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import run_lib
from choices import InputError
from datasets import loading
from devices import sharding
from evaluation import distances, quality, run
from evaluation.extractors import Extractor
from tests import tiny_classifier, tiny_config
from tests.support import random_run

SHAPE = (4, 4, 1)


def extractor(scale=1.0):
    """Features are some of the pixels."""

    def run(scale, pixels):
        x = scale * pixels.reshape(len(pixels), -1) / 255
        return x[:, :6], x[:, 6:]

    return Extractor('classifier', jnp.float32(scale), jax.jit(run), f'pixels {scale}')


def pictures(seed, num):
    return np.random.default_rng(seed).integers(0, 256, (num, *SHAPE), dtype=np.uint8)


@pytest.fixture
def judge(tmp_path):
    return quality.Quality(
        networks=[extractor()],
        reference=loading.from_arrays(pictures(0, 50)),
        other=loading.from_arrays(pictures(1, 70)),
        other_name='train',
        batch_size=16,
        max_features=30,
        extrapolate=True,
        cache_dir=tmp_path,
        mesh=sharding.create_mesh(),
    )


@pytest.mark.parametrize('batch_size', [1, 16, 50, 64])
def test_every_image_counts_whatever_the_batch_size(batch_size):
    data = loading.from_arrays(pictures(0, 50))
    found = quality.extract(extractor(), data, batch_size, 30, sharding.create_mesh(), 'data')
    x = pictures(0, 50).reshape(50, -1) / 255
    assert found.moments.count == 50
    np.testing.assert_allclose(found.moments.mean, x[:, :6].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.moments.covariance, np.cov(x[:, :6].T), atol=1e-7)
    np.testing.assert_allclose(found.features, x[:30, :6], rtol=1e-6)
    np.testing.assert_allclose(found.logits, x[:30, 6:], rtol=1e-6)


def test_measures_are_those_of_the_features_and_say_whose_they_are(judge, tmp_path):
    samples = pictures(2, 40)
    found = judge.of_samples('pc', samples, tmp_path / 'samples')
    x, y = (np.float32(a.reshape(len(a), -1)[:, :6]) / 255 for a in (samples, pictures(0, 50)))
    distance = distances.frechet_distance(distances.fit(x), distances.fit(y))
    np.testing.assert_allclose(found['pc_fd_classifier'], distance, rtol=1e-5)
    near = distances.neighbours(y[:30], x[:30])
    for name, value in near._asdict().items():
        np.testing.assert_allclose(found[f'pc_{name}_classifier'], value, rtol=1e-5)
    assert found['pc_fd_classifier_images'] == 40
    assert found['pc_fd_classifier_infinity'] < found['pc_fd_classifier']
    assert all('classifier' in name and 'fid' not in name for name in found)
    assert found['pc_kd_classifier_standard_error'] > 0


def test_the_floor_is_as_many_images_of_the_other_split(judge, tmp_path):
    found = judge.floor(40)
    expected = judge.of_samples('train', pictures(1, 70)[:40], tmp_path / 'samples')
    assert found == expected


def test_features_are_computed_once(judge, tmp_path, monkeypatch):
    first = judge.of_samples('pc', pictures(2, 40), tmp_path / 'samples')
    extracted = []
    extract = quality.extract

    def noted(by, data, *args):
        extracted.append(len(data))
        return extract(by, data, *args)

    monkeypatch.setattr(quality, 'extract', noted)
    assert judge.of_samples('pc', pictures(2, 40), tmp_path / 'samples') == first
    assert extracted == []
    (cached,) = judge.cache_dir.glob('*.npz')
    cached.write_bytes(cached.read_bytes()[:500])  # Damaged: made again.
    assert judge.of_samples('pc', pictures(2, 40), tmp_path / 'samples') == first
    assert extracted == [50]


def test_the_fingerprint_knows_images_network_and_what_is_kept():
    data = loading.from_arrays(pictures(0, 50))
    changed = pictures(0, 50)
    changed[31, 2, 3, 0] ^= 1
    prints = [
        quality.fingerprint(extractor(), data, 30),
        quality.fingerprint(extractor(), loading.from_arrays(changed), 30),
        quality.fingerprint(extractor(), dataclasses.replace(data, length=49), 30),
        quality.fingerprint(extractor(2.0), data, 30),
        quality.fingerprint(extractor(), data, 31),
    ]
    assert len(set(prints)) == 5
    assert quality.fingerprint(extractor(), loading.from_arrays(pictures(0, 50)), 30) == prints[0]


@pytest.mark.slow
def test_eval_mode_compares_samples_and_the_training_split(tmp_path):
    """The whole way, by networks with random parameters; twice, to the same numbers."""
    for name, config in (('run', tiny_config), ('classifier', tiny_classifier)):
        random_run.create(tmp_path / name, config.get_config(), 3)
    config = tiny_config.get_config()
    config.eval.loss = config.eval.bpd = False
    config.eval.samplers = ('pc',)
    config.eval.num_samples = 12
    config.eval.quality = ('classifier',)
    config.eval.classifier_workdir = str(tmp_path / 'classifier')
    numbers = []
    for _ in range(2):
        run.evaluate(config, tmp_path / 'run')
        found = json.loads((tmp_path / 'run' / 'eval' / '3' / 'metrics.json').read_text())
        numbers.append({name: v for name, v in found.items() if 'classifier' in name})
    assert numbers[0] == numbers[1]
    measures = {name.partition('_')[2] for name in numbers[0]}
    for split in ('pc', 'train'):
        assert {f'{split}_{measure}' for measure in measures} <= set(numbers[0])
    assert {'fd_classifier', 'kd_classifier', 'recall_classifier'} <= measures
    assert len(list((tmp_path / 'run' / 'features').glob('classifier_*.npz'))) == 2


@pytest.mark.parametrize(
    ('field', 'value', 'why'),
    [
        ('quality', ('clip',), 'eval.quality: unknown name .clip.*classifier, inception'),
        ('reference', 'val', 'eval.reference: unknown name .val.*train'),
        ('num_samples', 3, 'eval.num_samples: 3; eval.quality needs at least 10'),
        ('max_features', 3, 'eval.max_features: 3; eval.quality needs at least 10'),
    ],
)
def test_what_cannot_be_compared_is_refused(field, value, why, tmp_path, monkeypatch):
    config = tiny_config.get_config()
    config.eval.quality = ('classifier',)
    config.eval.num_samples = 12
    config.eval[field] = value
    if field != 'quality':
        monkeypatch.setattr(quality.extractors, 'create', lambda *_: extractor())
    experiment = run_lib.create_experiment(config)
    with pytest.raises(InputError, match=why):
        run.create_quality(config, experiment, sharding.create_mesh(), tmp_path)

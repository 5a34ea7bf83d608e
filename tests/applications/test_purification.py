"""Purification as users run it: their images, classifiers that are attacked, and refusals."""

import jax.numpy as jnp
import numpy as np
import pytest

import run_lib
from applications.purification import settings
from applications.purification.purifiers import ADP, DiffPure, Noise
from choices import InputError
from evaluation import corruptions, quantities
from experiments import kinds
from tests import tiny_classes, tiny_classifier, tiny_config
from tests.support import random_run

NUM = 12
EPS = 0.1


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    return random_run.create(tmp_path_factory.mktemp('digits'), tiny_config.get_config(), 0)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Images of four classes."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp('data') / 'toy.npz'
    images, labels = rng.integers(0, 256, (20, 8, 8, 1), np.uint8), np.arange(20) % 4
    arrays = {f'{split}_images': images for split in ('train', 'test')}
    np.savez(path, **arrays, train_labels=labels, test_labels=labels)
    return f'npz:{path}'


# Images of a user


def purify(workdir, config=None, num_images=3, each=2, **fields):
    """Runs --mode=sample --task=purify; the arrays that it leaves."""
    config = config or tiny_config.get_config()
    config.task.update({'name': 'purify', 'num_images': num_images, 'samples_each': each})
    config.purify.update(fields)
    run_lib.sample(config, workdir)
    newest = max((workdir / 'samples').glob('*.npz'), key=lambda path: path.stat().st_mtime_ns)
    assert newest.with_suffix('.png').exists()
    return newest.stem, np.load(newest)


@pytest.mark.parametrize(
    ('method', 'fields', 'nfe'),
    [
        ('adp', {}, 6),
        ('diffpure', {'sampler': 'heun', 'steps': 2}, 5),
        ('diffpure', {}, tiny_config.get_config().sampling.steps),
    ],
)
def test_images_are_purified(digits, method, fields, nfe):
    """Two samples of each, from different noise, by any sampler."""
    name, found = purify(digits, method=method, **fields)
    assert name.startswith(f'0000000_purify_{method}')
    assert found['samples'].shape == (6, 8, 8, 1)
    assert found['originals'].shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(found['nfe'], nfe)
    assert np.mean(found['samples'][0] != found['samples'][1]) > 0.5


def test_nothing_leaves_images_as_they_are(digits):
    """To the last bit, and the second sample like the first."""
    _, found = purify(digits, method='none')
    np.testing.assert_array_equal(found['samples'].reshape(3, 2, 8, 8, 1)[:, 1], found['originals'])


def test_a_network_of_classes_purifies_as_if_there_were_none(tmp_path):
    config = tiny_classes.get_config()
    workdir = random_run.create(tmp_path, config, 0)
    _, found = purify(workdir, config, method='denoise_once')
    np.testing.assert_array_equal(found['nfe'], 1)


# From configs


def purifier_of(**fields):
    config = tiny_config.get_config()
    config.purify.update(fields)
    return settings.create_purifier(config.purify, config, kinds.create(config).model, low=-1.0)


def test_levels_are_of_pixels_from_0_to_1():
    """Here they go from -1 to 1."""
    assert purifier_of(method='adp', level=0.25, rate=0.5) == ADP(level=0.5, rate=0.5)
    assert purifier_of(method='noise', level=0.1) == Noise(level=0.2)
    found = purifier_of(method='diffpure', sampler='heun', steps=7)
    assert isinstance(found, DiffPure)
    assert found.sampler.grid.steps == 7


def test_a_level_that_the_network_does_not_know_is_refused():
    """The VP SDE has noise of exp(10.05)^(1/2) alphas at most."""
    with pytest.raises(InputError, match='^purify.level: 80; a number above 0.0005.* and below 76'):
        purifier_of(method='adp', level=80.0)


# Classifiers


def evaluated(workdir, source, digits, **sections):
    """Runs --mode=eval of a classifier; what it finds out, by name and of what."""
    config = tiny_classifier.get_config()
    config.data.source = source
    config.eval.loss = False
    fields = {'method': 'denoise_once', 'workdir': str(digits), 'num_images': NUM, 'runs': 3}
    config.purify.update(fields)
    config.attack.update({'eps': (EPS,), 'steps': 2, 'draws': 2})
    for section, fields in sections.items():
        config[section].update(fields)
    run_lib.evaluate(config, workdir)
    found = quantities.read(workdir / 'eval' / '0' / 'metrics.json')
    return {(quantity.name, quantity.of): quantity for quantity in found}


@pytest.fixture(scope='module')
def attacked(tmp_path_factory, source, digits):
    """A workdir that was evaluated, and what was found out."""
    path = tmp_path_factory.mktemp('attacked')
    random_run.create(path, tiny_classifier.get_config(), 0)
    asked = {'robustness': ('blind', 'full')}
    return path, evaluated(path, source, digits, eval=asked)


def test_the_least_accuracy_is_that_of_all_attacks(attacked):
    _, found = attacked
    names = [f'{knows}_eps=0.1' for knows in ('blind', 'full')]
    values = [found['robust_accuracy', name].value for name in names]
    assert found['robust_accuracy', 'least_eps=0.1'].value == min(values)
    for name in ('purified', *names):
        single, always = (found[f'robust_accuracy_{n}', name] for n in ('single', 'always'))
        assert always.value <= single.value <= 1
        value = found['robust_accuracy', name].value
        assert value * NUM == pytest.approx(round(value * NUM))
        assert single.standard_error is not None


def test_attacked_images_are_kept_and_lie_in_their_ball(attacked, source):
    """The radius is in pixels from 0 to 1, and one for all attacks."""
    path, _ = attacked
    parts = sorted((path / 'eval' / '0' / 'batches').glob('*_attack_*'))
    assert [part.name.partition('_')[0] for part in parts] == ['blind', 'full']
    config = tiny_classifier.get_config()
    config.data.source = source
    experiment = kinds.create(config)
    pixels = experiment.data('test').gather(np.arange(NUM))['image']
    x = experiment.model.format.to_float(jnp.asarray(pixels))
    for part in parts:
        kept = [np.load(file)['attacked'] for file in sorted(part.glob('*.npz'))]
        assert [len(images) for images in kept] == [10, 2]
        away = np.abs(np.concatenate(kept) - x)
        np.testing.assert_allclose(away.max(), 2 * EPS, rtol=1e-5)
    assert (path / 'eval' / '0' / 'purification.png').exists()
    assert 'Attacked, and purified' in (path / 'report.html').read_text()


def test_an_evaluation_goes_on_where_it_was_stopped(attacked, source, digits):
    """A batch that is missing is made again, to the same numbers, and no other one."""
    path, found = attacked
    parts = sorted((path / 'eval' / '0' / 'batches').glob('*/*.npz'))
    before = {part: part.stat().st_mtime_ns for part in parts}
    [lost] = [part for part in parts if 'full_attack' in str(part) and '000001' in part.name]
    content = dict(np.load(lost))
    lost.unlink()
    again = evaluated(path, source, digits, eval={'robustness': ('blind', 'full')})
    assert again == found
    np.testing.assert_array_equal(np.load(lost)['attacked'], content['attacked'])
    assert [part for part in parts if part.stat().st_mtime_ns != before[part]] == [lost]


def test_corruptions_are_measured_with_and_without_purification(tmp_path, source, digits):
    random_run.create(tmp_path, tiny_classifier.get_config(), 0)
    fields = {'eval': {'corruptions': ('contrast',)}, 'purify': {'method': 'noise'}}
    found = evaluated(tmp_path, source, digits, **fields)
    of = {of for name, of in found if name == 'robust_accuracy'}
    assert of == {f'contrast_{i}{end}' for i in corruptions.STRENGTHS for end in ('', '_purified')}


@pytest.mark.parametrize(
    ('fields', 'word'),
    [
        (
            {'workdir': None},
            "^purify.workdir: 'denoise_once' needs one, of a score model of such images",
        ),
        ({'workdir': 'nowhere'}, '^purify.workdir: nowhere has no config.json; train a score mod'),
        (
            {'method': 'diffpure', 'sampler': 'ode'},
            "^eval.robustness: 'full' needs the gradient of the purifier",
        ),
    ],
)
def test_what_cannot_stand_before_a_classifier_is_refused(tmp_path, source, digits, fields, word):
    random_run.create(tmp_path, tiny_classifier.get_config(), 0)
    with pytest.raises(InputError, match=word):
        evaluated(tmp_path, source, digits, eval={'robustness': ('full',)}, purify=fields)


def test_another_network_is_no_score_model(attacked, source, tmp_path):
    path, _ = attacked
    random_run.create(tmp_path, tiny_classifier.get_config(), 0)
    with pytest.raises(InputError, match="^purify.workdir: .* has a 'classifier', no score model"):
        evaluated(tmp_path, source, path, eval={'robustness': ('blind',)})

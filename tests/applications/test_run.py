"""Conditional sampling as users run it: their images, masks and classifiers, and refusals."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import run_lib
from choices import InputError, RunError
from datasets import loading
from experiments import image_drawing, run_files
from reports import pictures
from storage import workdirs
from tests import tiny_classes, tiny_classifier, tiny_config
from tests.support import program, random_run

MASK = np.arange(64).reshape(8, 8) % 3 == 0
RNG = np.random.default_rng(0)


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    return random_run.create(tmp_path_factory.mktemp('digits'), tiny_config.get_config(), 0)


@pytest.fixture(scope='module')
def judge(tmp_path_factory):
    return random_run.create(tmp_path_factory.mktemp('judge'), tiny_classifier.get_config(), 0)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A folder of pictures, a mask, and a matrix with measurements by it."""
    path = tmp_path_factory.mktemp('files')
    (path / 'pictures').mkdir()
    for i in range(3):
        pixels = RNG.integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(path / 'pictures' / f'{i}.png')
        Image.fromarray(pixels[:4, :4]).resize((4, 4)).save(path / f'small_{i}.png')
    Image.fromarray(np.uint8(255 * MASK)).save(path / 'mask.png')
    Image.fromarray(np.zeros((3, 8), np.uint8)).save(path / 'flat.png')
    np.save(path / 'matrix.npy', RNG.normal(size=(5, 64)) / 8)
    np.save(path / 'measured.npy', RNG.normal(size=(2, 5)))
    return path


def sample(workdir, config=None, **task):
    """Runs --mode=sample; the arrays that it leaves."""
    config = config or tiny_config.get_config()
    config.task.update({'samples_each': 2, **task})
    run_lib.sample(config, workdir)
    newest = max((workdir / 'samples').glob('*.npz'), key=lambda path: path.stat().st_mtime_ns)
    assert newest.with_suffix('.png').exists()
    return newest.name, np.load(newest)


def test_inpainting_of_ones_own_pictures(digits, files, capsys):
    """Known pixels are those of the files, and the mask is that of the file."""
    name, found = sample(
        digits,
        name='inpaint',
        mask=str(files / 'mask.png'),
        images=f'folder:{files}/pictures',
        num_images=2,
    )
    assert name == '0000000_inpaint_projection.npz'
    said = f'task.images folder:{files}/pictures: 3 images of 8x8 pixels, no classes\n'
    assert said in capsys.readouterr().out
    assert found['samples'].shape == (2, 2, 8, 8, 1)
    for i in range(2):
        pixels = np.asarray(Image.open(files / 'pictures' / f'{i}.png'))[..., None]
        np.testing.assert_array_equal(found['originals'][i], pixels)
        for drawn in found['samples'][i]:
            np.testing.assert_array_equal(drawn[MASK], pixels[MASK])
        assert (found['samples'][i][0] != found['samples'][i][1])[~MASK].mean() > 0.5


def test_a_small_picture_is_made_large(digits, files):
    """A measurement of which there is no original: the blocks of the result have its values."""
    path = files / 'small_0.png'
    name, found = sample(
        digits, name='superresolve', factor=2, measured=True, images=str(path), method='pigdm'
    )
    assert name == '0000000_superresolve_pigdm.npz'
    assert 'originals' not in found
    small = np.asarray(Image.open(path)) / 255 * 2 - 1
    np.testing.assert_allclose(found['measurements'][0, ..., 0], small, atol=1e-6)
    assert found['samples'].shape == (1, 2, 8, 8, 1)


def test_measurements_by_a_matrix(digits, files, monkeypatch):
    """Of files below the home directory."""
    monkeypatch.setenv('HOME', str(files))
    _, found = sample(
        digits,
        name='linear',
        matrix='~/matrix.npy',
        measured=True,
        images='~/measured.npy',
        noise_std=0.1,
        method='dps',
    )
    assert found['samples'].shape == (2, 2, 8, 8, 1)


def test_classes_by_a_classifier(digits, judge, capsys):
    name, found = sample(digits, name='class', classifier=str(judge))
    assert name == '0000000_class.npz'
    np.testing.assert_array_equal(found['labels'], [0, 1, 2, 3, 0, 1])
    assert found['samples'].shape == (6, 8, 8, 1)
    assert '% are of their class' in capsys.readouterr().out


def test_classes_by_the_network(tmp_path):
    config = tiny_classes.get_config()
    _, found = sample(
        random_run.create(tmp_path, config, 0), config, name='class', label=7, guidance=2.0
    )
    assert set(found['labels']) == {7}
    np.testing.assert_array_equal(found['nfe'], 2 * config.sampling.steps)


def keep_classes(workdir, *counts):
    """As training does, for images that have so many of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = loading.from_arrays(np.zeros((len(labels), 8, 8, 1), np.uint8), labels)
    names = tuple(f'class_{i}' for i in range(len(counts)))
    named = dataclasses.replace(images, class_names=names)
    workdirs.keep_data(workdir, False, False, {}, dataclasses.asdict(named.classes))


def test_classes_that_exist_are_drawn_and_named(tmp_path, monkeypatch):
    """As training has kept them in the workdir; the report names them too."""
    config = tiny_classes.get_config()
    random_run.create(tmp_path, config, 0)
    keep_classes(tmp_path, 3, 0, 5, 0, 1)
    captions, captioned = [], pictures.captioned
    monkeypatch.setattr(
        pictures,
        'captioned',
        lambda images, names, *columns: (
            captions.append(names) or captioned(images, names, *columns)
        ),
    )
    _, found = sample(tmp_path, config, name='class')
    np.testing.assert_array_equal(found['labels'], [0, 2, 4, 0, 2, 4])
    assert captions == [['class_0', 'class_2', 'class_4']]
    report = (tmp_path / 'report.html').read_text()
    assert 'class of class_0, class_2, class_4' in report
    with pytest.raises(InputError, match='task.label: 3, and no training image .* class_2'):
        sample(tmp_path, config, name='class', label=3)


def test_a_classifier_tells_which_classes_exist(digits, tmp_path):
    judge = random_run.create(tmp_path, tiny_classifier.get_config(), 0)
    keep_classes(judge, 0, 2, 2)
    _, found = sample(digits, name='class', classifier=str(judge))
    np.testing.assert_array_equal(found['labels'], [1, 2, 1, 2, 1, 2])


@pytest.mark.parametrize(
    ('task', 'word'),
    [
        ({'name': 'inpaint', 'mask': '{files}/none.png'}, 'task.mask: .*none.png is not an image'),
        ({'name': 'inpaint', 'mask': '{files}/flat.png'}, r'task.mask: .* has 3x8 pixels; 8x8'),
        ({'name': 'linear', 'matrix': '{files}/mask.png'}, 'task.matrix: .* is no .npy file'),
        (
            {'name': 'superresolve', 'factor': 2, 'images': 'folder:{files}/none'},
            'task.images folder:.*none: there is no such folder',
        ),
        ({'name': 'superresolve', 'factor': 2, 'images': '{files}/no.png'}, 'task.images: .*no.p'),
        ({'name': 'superresolve', 'factor': 2, 'measured': True}, 'task.images: images that are'),
        (
            {
                'name': 'superresolve',
                'factor': 2,
                'measured': True,
                'images': 'folder:{files}/pictures',
            },
            r'task.images: .*/pictures/0.png has 8x8 pixels; 4x4 needed',
        ),
        (
            {
                'name': 'deblur',
                'blur_std': 1.0,
                'measured': True,
                'images': '{files}/small_0.png',
            },
            r'task.images: .*/small_0.png has 4x4 pixels; 8x8 needed',
        ),
        (
            {
                'name': 'linear',
                'matrix': '{files}/matrix.npy',
                'measured': True,
                'images': '{files}/matrix.npy',
            },
            r'task.images: .* is \(5, 64\); \[images, 5\] needed',
        ),
        ({'name': 'class', 'classifier': '{files}'}, 'task.classifier: .* has no config.json'),
        ({'name': 'class', 'classifier': '{digits}'}, "task.classifier: .* has a 'score_model'"),
    ],
)
def test_what_cannot_be_read_is_refused(digits, files, task, word):
    """Before anything is drawn, with the field that it is given by."""
    named = {
        field: value.format(files=files, digits=digits) if isinstance(value, str) else value
        for field, value in task.items()
    }
    with pytest.raises(InputError, match=word):
        sample(digits, **named)


def test_a_classifier_of_other_images_is_refused(tmp_path, digits):
    config = tiny_classifier.get_config()
    config.data.centered = False
    run_files.claim(tmp_path, config)
    with pytest.raises(InputError, match='task.classifier: centered False in .*, and True here'):
        sample(digits, name='class', classifier=str(tmp_path))


def test_a_classifier_that_knows_no_noise_does_not_guide(tmp_path, digits):
    config = tiny_classifier.get_config()
    config.training.noise = False
    random_run.create(tmp_path, config, 0)
    with pytest.raises(InputError, match='task.classifier: .* training.noise = False, and cannot'):
        sample(digits, name='class', classifier=str(tmp_path))


def test_a_task_is_for_sampling(tmp_path):
    flags = '--config=tests/tiny_config.py', f'--workdir={tmp_path}'
    line = program.refusal(*flags, '--mode=train', '--task=inpaint')
    assert line == 'error: --task: inpaint is for --mode=sample of a score model'


def test_images_that_are_none_leave_their_places_in_the_picture(digits, files, monkeypatch):
    """And are in no array: `index` says which samples the others are."""
    draw = image_drawing.in_8_bits

    def without_the_third(image_format, found):
        arrays = draw(image_format, found)
        return {**arrays, 'is_finite': arrays['is_finite'] & (jnp.arange(len(found.x)) != 2)}

    fields = {
        'name': 'inpaint',
        'mask': str(files / 'mask.png'),
        'images': f'folder:{files}/pictures',
        'num_images': 2,
        'noise_std': 0.1,
        'method': 'dps',
    }
    monkeypatch.setattr(image_drawing, 'in_8_bits', without_the_third)
    with pytest.raises(RunError, match='^inpaint_dps: 1 of 4 images are left out: 1 are not fini'):
        sample(digits, **fields)
    found = np.load(digits / 'samples' / '0000000_inpaint_dps.npz')
    np.testing.assert_array_equal(found['index'], [0, 1, 3])
    assert found['samples'].shape == (3, 8, 8, 1)
    assert found['originals'].shape == (2, 8, 8, 1)


def test_noise_in_measurements_has_a_seed_of_its_own(digits, files):
    fields = {
        'name': 'superresolve',
        'factor': 2,
        'images': f'folder:{files}/pictures',
        'num_images': 2,
        'noise_std': 0.1,
        'method': 'dps',
    }
    found = [sample(digits, **fields, seed=seed) for seed in (None, 42, 7)]
    measured = [arrays['measurements'] for _, arrays in found]
    np.testing.assert_array_equal(measured[0], measured[1])
    assert np.abs(measured[2] - measured[0]).min() > 0
    # Of other measurements, samples are beside the first.
    assert len({name for name, _ in found}) >= 2

"""Every row of docs/bad_input.md: what the program is given, and how it refuses that."""

import pickle
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from evaluation import extractors
from experiments import kinds
from published import formats
from storage import workdirs
from storage.locks import Lock
from tests import tiny_classifier, tiny_config
from tests.support import golden, program, random_run

DOCUMENT = (program.ROOT / 'docs' / 'bad_input.md').read_text()
ROWS = re.findall(r'^\| `(.+?)` \| (.+) \|$', DOCUMENT, re.MULTILINE)

CONFIGS = {
    'mistyped': "config.optim = ConfigDict({**config.optim, 'lrr': 1.0})",
    'missing': 'del config.optim.lr',
    'string': "config.model = ConfigDict({**config.model, 'nf': '8'})",
    'bool': "config.model = ConfigDict({**config.model, 'nf': True})",
    'none': "config.model = ConfigDict({**config.model, 'dropout': None})",
    'section': "config = ConfigDict({**config, 'sampling': 3})",
    'lacking': 'config.sde.sigma_max = 3.0',
    'sampled': "config = ConfigDict({**tiny_classifier.get_config(), 'sampling': {'steps': 3}})",
}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """The directory that the rows call FILES."""
    path = tmp_path_factory.mktemp('files')
    for name, change in CONFIGS.items():
        (path / f'{name}.py').write_text(
            'from ml_collections import ConfigDict\n\n'
            'from tests import tiny_classifier, tiny_config\n\n\n'
            f'def get_config():\n    config = tiny_config.get_config()\n    {change}\n'
            '    return config\n'
        )
    write_data(path)
    write_workdirs(path)
    write_published(path)
    lock = Lock(path / 'locked' / 'lock')
    lock.take()
    yield path
    lock.release()


def write_data(path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    (path / 'text.npz').write_text('no arrays')
    np.savez(path / 'floats.npz', images=pixels[:4] / 255)
    np.savez(path / 'none.npz', images=pixels[:0])
    np.savez(path / 'flat.npz', images=pixels)
    np.savez(path / 'misnamed.npz', images=pixels, class_names=np.arange(2))
    np.savez(path / 'unlabelled.npz', images=np.tile(pixels, (10, 1, 1)))
    np.savez(path / 'negative.npz', images=pixels, labels=np.arange(20) - 2)
    np.savez(path / 'sorted.npz', images=np.tile(pixels, (50, 1, 1)), labels=np.arange(1000) // 100)
    Image.fromarray(pixels[0, :4, :4]).save(path / 'small.png')
    for names in (
        'flat/0 flat/1',
        'twice/train/0 twice/Train/1',
        'beside/train/0 beside/extra/1',
        'within/a/train/0 within/b/test/1',
        'untrained/test/0',
        'linked/test/0',
        'lab/0 lab/7',
        'mislabelled/0',
    ):
        for name in names.split():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[0]).save(path / f'{name}.png')
    (path / 'linked' / 'train').symlink_to('test')
    Image.new('LAB', (8, 8)).save(path / 'lab' / '7.png', 'TIFF')
    (path / 'mislabelled' / 'dataset.json').write_text('{"labels": [["0.png", -3]]}')
    (path / 'cifar').mkdir()
    (path / 'cifar' / 'cifar-10-python.tar.gz').write_text('not found')
    (path / 'empty').mkdir()
    (path / 'broken').mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(path / 'broken' / f'{i}.png')
    # Cut amid the noise: a plain image would have all of its pixels in the first bytes.
    whole = (path / 'broken' / '7.png').read_bytes()
    (path / 'broken' / '7.png').write_bytes(whole[:70])


def write_workdirs(path):
    config, wider = tiny_config.get_config(), tiny_config.get_config()
    wider.model.nf = 16
    random_run.create(path / 'run', config, 20)
    random_run.create(path / 'unsaved', config)
    random_run.create(path / 'other_data', config, 20)
    before = {'train': {'examples': 3, 'fingerprint': ''}}
    workdirs.keep_data(path / 'other_data', False, False, before)
    random_run.create(path / 'classifier', tiny_classifier.get_config(), 20)
    random_run.create(path / 'other_network', wider, 20)
    shutil.copy(path / 'run' / 'config.json', path / 'other_network' / 'config.json')
    shutil.copytree(path / 'run', path / 'damaged')
    (path / 'damaged' / 'checkpoints' / '20' / 'default' / 'manifest.ocdbt').unlink()
    write_damaged(path)


def write_damaged(path):
    """Workdirs without checkpoints, in which one file is not what it was."""
    config = (path / 'run' / 'config.json').read_text()
    for name, file, content in (
        ('short_config', 'config.json', config[:100]),
        ('empty_config', 'config.json', ''),
        ('listed_config', 'config.json', '[]'),
        ('damaged_log', 'logs/metrics.jsonl', '{"step": 1}\ngarbage\n{"step": 3}\n'),
        ('damaged_eval', 'eval/20/metrics.json', '{"step": 20, "quant'),
        ('file_within', 'samples', ''),
    ):
        (path / name / file).parent.mkdir(parents=True, exist_ok=True)
        (path / name / 'config.json').write_text(config)
        (path / name / file).write_text(content)
    (path / 'folder.npz').mkdir()


def write_published(path):
    """Files to import that are not whole, or not finite."""
    whole = (golden.DATA / 'published_ncsnpp_ve.pth').read_bytes()
    (path / 'short.pth').write_bytes(whole[:1000])
    (path / 'other.pkl').write_bytes(pickle.dumps({'step': 1}))
    init = kinds.create(tiny_config.get_config()).init
    params = jax.eval_shape(init, jax.random.key(0)).params
    infinite = jax.tree.map(lambda a: np.full(a.shape, np.inf, a.dtype), params)
    formats.write(path / 'infinite.npz', 1, infinite, infinite)


def test_the_document_has_rows_of_every_kind():
    sections = DOCUMENT.split('\n## ')[1:]
    assert len(sections) == 9
    assert all('| `' in section for section in sections)
    assert len(ROWS) == DOCUMENT.count('\n| `')


@pytest.mark.parametrize(('flags', 'expected'), ROWS, ids=[flags for flags, _ in ROWS])
def test_bad_input_is_refused_in_one_line(flags, expected, files, tmp_path, capfd, monkeypatch):
    monkeypatch.delenv(extractors.INCEPTION_VARIABLE, raising=False)
    given = flags.replace('FILES', str(files)).split()
    for name, default in (('config', 'tests/tiny_config.py'), ('workdir', tmp_path / 'new')):
        if not any(flag.startswith(f'--{name}=') for flag in given):
            given.insert(0, f'--{name}={default}')
    refused = program.refusal(*given)
    assert expected.replace('FILES', str(files)).replace(r'\|', '|') in refused
    assert not capfd.readouterr().err
    assert not (tmp_path / 'new').exists()

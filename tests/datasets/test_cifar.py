"""CIFAR's archives: both formats, checksums, downloads, and what is refused."""

import os
import pickle
import urllib.request

import numpy as np
import pytest

from datasets import cifar, downloads, loading
from datasets.downloads import Published
from datasets.stored import DataError
from tests.support import cifar_files
from tests.support.cifar_files import FINE, IMAGES, LABELS, NAMES, NUM_TRAIN
from tests.support.numbered import everything

FILES = {
    'cifar-10-python.tar.gz': cifar_files.python10,
    'cifar-10-binary.tar.gz': cifar_files.binary10,
    'cifar-100-python.tar.gz': cifar_files.python100,
    'cifar-100-binary.tar.gz': cifar_files.binary100,
}
PYTHON, BINARY = 'cifar-10-python.tar.gz', 'cifar-10-binary.tar.gz'
PARTS = {'train': slice(0, NUM_TRAIN), 'test': slice(NUM_TRAIN, None)}


def load(source, split='train', data_dir=None):
    return loading.load(source, split, (32, 32), 3, data_dir=data_dir)


def published(monkeypatch, path, **md5):
    """Makes the archives of a directory the published ones, at addresses of files."""
    data_set = cifar.DATA_SETS['cifar10']
    formats = []
    for form in data_set.formats:
        file = path / form.archive.name
        if file.exists():
            archive = Published(file.as_uri(), downloads.md5(file))
            formats.append(form._replace(archive=archive, md5=md5 or form.md5))
    monkeypatch.setitem(cifar.DATA_SETS, 'cifar10', data_set._replace(formats=tuple(formats)))
    cifar._read.cache_clear()


@pytest.mark.parametrize('archive', FILES)
@pytest.mark.parametrize('is_unpacked', [False, True], ids=['archive', 'folder'])
def test_both_formats_hold_images_labels_and_names(tmp_path, archive, is_unpacked):
    files = FILES[archive]()
    if is_unpacked:
        path = cifar_files.unpack(tmp_path, files)
    else:
        path = cifar_files.pack(tmp_path / archive, files)
    is_100 = '100' in archive
    for split, part in PARTS.items():
        images = load(f'cifar{"100" if is_100 else "10"}:{path}', split)
        batch = everything(images)
        np.testing.assert_array_equal(batch['image'], IMAGES[part])
        np.testing.assert_array_equal(batch['label'], LABELS[part] + 7 * is_100)
        assert images.class_names == (FINE if is_100 else NAMES)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_are_read(tmp_path, protocol):
    path = cifar_files.unpack(tmp_path, cifar_files.python10(protocol=protocol))
    np.testing.assert_array_equal(everything(load(f'cifar10:{path}'))['image'], IMAGES[:NUM_TRAIN])


def test_batches_are_in_the_order_of_their_numbers(tmp_path):
    """The tenth comes after the ninth."""
    path = cifar_files.unpack(tmp_path, cifar_files.python10(num_batches=12))
    np.testing.assert_array_equal(everything(load(f'cifar10:{path}'))['image'], IMAGES[:NUM_TRAIN])


@pytest.mark.parametrize('inside', [True, False], ids=['unpacked', 'packed'])
def test_a_folder_may_hold_the_archive_or_what_it_unpacks_to(tmp_path, inside):
    if inside:
        cifar_files.unpack(tmp_path, cifar_files.binary10())
    else:
        cifar_files.pack(tmp_path / BINARY, cifar_files.binary10())
    assert len(load(f'cifar10:{tmp_path}')) == NUM_TRAIN


def test_splits_have_the_same_fingerprint_in_both_formats(tmp_path):
    prints = [
        load(f'cifar10:{cifar_files.pack(tmp_path / name, FILES[name]())}').fingerprint
        for name in (PYTHON, BINARY)
    ]
    assert prints[0] == prints[1]


# Checksums


def test_the_published_files_are_read_in_silence_and_others_are_told(tmp_path, monkeypatch, capsys):
    path = cifar_files.pack(tmp_path / PYTHON, cifar_files.python10())
    load(f'cifar10:{path}')
    said = capsys.readouterr().out
    assert said.startswith(f'data.source cifar10:{path}: not the published {PYTHON}, whose MD5 is ')
    assert said.count('\n') == 1
    published(monkeypatch, tmp_path)
    load(f'cifar10:{path}')
    assert not capsys.readouterr().out


def test_an_unpacked_folder_of_which_one_file_is_damaged_is_refused(tmp_path, monkeypatch):
    files = cifar_files.python10()
    cifar_files.pack(tmp_path / PYTHON, files)
    path = cifar_files.unpack(tmp_path, files)
    names = [name for name in os.listdir(path) if name != 'batches.meta']
    published(monkeypatch, tmp_path, **{name: downloads.md5(path / name) for name in names})
    assert len(load(f'cifar10:{path}')) == NUM_TRAIN
    batch = (path / 'data_batch_2').read_bytes()
    (path / 'data_batch_2').write_bytes(batch.replace(IMAGES[5].tobytes()[:1], b'\0', 1))
    with pytest.raises(DataError, match='data_batch_2 is damaged or missing: its MD5 is not the p'):
        load(f'cifar10:{path}')


# Downloads


@pytest.mark.parametrize('name', [PYTHON, BINARY])
def test_without_a_path_the_archive_is_downloaded_once(tmp_path, monkeypatch, name):
    cifar_files.pack(tmp_path / name, FILES[name]())
    published(monkeypatch, tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    assert len(load('cifar10')) == NUM_TRAIN
    assert os.listdir(tmp_path / 'cache' / 'score_sde' / 'data') == [name]
    monkeypatch.setattr(urllib.request, 'urlopen', None)
    assert len(load('cifar10', 'test')) == len(IMAGES) - NUM_TRAIN


def test_data_dir_is_where_downloads_are_kept(tmp_path, monkeypatch):
    cifar_files.pack(tmp_path / PYTHON, cifar_files.python10())
    published(monkeypatch, tmp_path)
    load('cifar10', data_dir=str(tmp_path / 'mine'))
    assert os.listdir(tmp_path / 'mine') == [PYTHON]


def test_a_download_that_arrives_damaged_is_not_kept(tmp_path, monkeypatch):
    path = cifar_files.pack(tmp_path / PYTHON, cifar_files.python10())
    published(monkeypatch, tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match='arrived damaged: its MD5 is .*; try again'):
        load('cifar10', data_dir=str(tmp_path / 'mine'))
    assert os.listdir(tmp_path / 'mine') == []


def test_offline_the_line_says_which_file_is_to_be_put_where(tmp_path, monkeypatch):
    path = cifar_files.pack(tmp_path / PYTHON, cifar_files.python10())
    published(monkeypatch, tmp_path)
    path.unlink()
    where = tmp_path / 'mine'
    with pytest.raises(DataError) as error:
        load('cifar10', data_dir=str(where))
    line = str(error.value)
    assert '\n' not in line
    assert f'put {PYTHON} into {where}, or give --config.data.source=cifar10:PATH' in line


def test_another_file_in_the_place_of_the_published_one_is_refused(tmp_path):
    path = cifar_files.pack(tmp_path / PYTHON, cifar_files.python10())
    with pytest.raises(DataError, match=f'{path} is not the published file: .* or give cifar10:'):
        load('cifar10', data_dir=str(tmp_path))


# Refusals


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'text'])
def test_damaged_archives_are_refused(tmp_path, damage):
    path = cifar_files.pack(tmp_path / PYTHON, cifar_files.python10())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(
        {'cut': content[: len(content) // 2], 'flipped': content, 'text': b'404 not found'}[damage]
    )
    with pytest.raises(DataError, match='is no tar archive, or one .*damaged .*; copy or download'):
        load(f'cifar10:{path}')


class Hostile:
    """What makes a directory when it is unpickled in the usual way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('name', ['data_batch_1', 'batches.meta'])
def test_nothing_in_a_pickle_is_executed(tmp_path, name):
    files = cifar_files.python10()
    victim = tmp_path / 'victim'
    files[f'cifar-10-batches-py/{name}'] = pickle.dumps({'data': Hostile(victim)})
    path = cifar_files.pack(tmp_path / PYTHON, files)
    with pytest.raises(DataError, match=f'{name} is no pickle that can be read safely: it names'):
        load(f'cifar10:{path}')
    assert not victim.exists()


def test_a_training_file_that_is_missing_is_told(tmp_path):
    files = cifar_files.python10()
    del files['cifar-10-batches-py/data_batch_2']
    path = cifar_files.unpack(tmp_path, files)
    with pytest.raises(DataError, match='it has data_batch_1, data_batch_3; unpack the archive'):
        load(f'cifar10:{path}')


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (
            {'data': IMAGES[:2], 'labels': [1, 2]},
            r"'data' is uint8 \(2, 32, 32, 3\); uint8 \(n, 3072\)",
        ),
        ({'data': cifar_files.rows()[:2], 'labels': [1]}, r"'labels' is int64 \(1,\); a whole"),
        ({'data': cifar_files.rows()[:2], 'labels': [1, 10]}, 'labels from 1 to 10; from 0 to 9'),
        ({'labels': [1]}, "is no batch of images: 'data' and 'labels' needed"),
        ([], 'holds no dictionary'),
    ],
)
def test_pickles_with_other_contents_are_refused(tmp_path, changed, message):
    files = cifar_files.python10()
    files['cifar-10-batches-py/data_batch_1'] = pickle.dumps(changed)
    with pytest.raises(DataError, match=message):
        load(f'cifar10:{cifar_files.unpack(tmp_path, files)}')


def test_binary_files_that_are_cut_short_are_refused(tmp_path):
    files = cifar_files.binary10()
    files['cifar-10-batches-bin/test_batch.bin'] += b'1'
    with pytest.raises(DataError, match=r'test_batch.bin is damaged: it has 12,293 bytes, and row'):
        load(f'cifar10:{cifar_files.unpack(tmp_path, files)}')


def test_the_archive_of_the_other_data_set_is_refused(tmp_path):
    path = cifar_files.pack(tmp_path / 'x.tar.gz', cifar_files.python100())
    with pytest.raises(DataError, match=f'neither test_batch nor test_batch.bin; {PYTHON} or'):
        load(f'cifar10:{path}')
    with pytest.raises(DataError, match='there is no such file or folder'):
        load(f'cifar10:{tmp_path}/nowhere')


@pytest.mark.parametrize('kind', ['', 'folder:', 'npz:', 'tar:'])
def test_users_of_another_source_are_told_the_right_one(tmp_path, kind):
    archive = cifar_files.pack(tmp_path / PYTHON, cifar_files.python10())
    folder = cifar_files.unpack(tmp_path, cifar_files.python10())
    path = folder if kind == 'folder:' else archive
    with pytest.raises(DataError, match=f'cifar10:{path}'):
        load(f'{kind}{path}')

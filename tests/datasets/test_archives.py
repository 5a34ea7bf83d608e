"""Archives of images: the same images as in a folder, for any number of threads and processes."""

import bz2
import concurrent.futures
import gzip
import io
import json
import lzma
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from datasets import archives, image_files, loading
from datasets.stored import DataError
from tests.support.numbered import everything, numbers

ROOT = pathlib.Path(__file__).parents[2]
NUM = 40
NAMES = [f'{i // 10:05d}/img{i:08d}.png' for i in range(NUM)]
LABELS = {'labels': [[name, i % 4] for i, name in enumerate(NAMES)]}


def png(number):
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), number, np.uint8)).save(stream, 'PNG')
    return stream.getvalue()


def of_edm(labels=LABELS):
    """By their names, files as EDM's dataset tool writes them."""
    files = {name: png(i) for i, name in enumerate(NAMES)}
    return files | {'dataset.json': json.dumps(labels).encode()}


def write_zip(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return f'zip:{path}'


def write_deflated(path, files):
    return write_zip(path, files, zipfile.ZIP_DEFLATED)


def write_tar(path, files, mode='w'):
    """As `tar -c .` does, with './' before names."""
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo('.')
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(f'./{name}')
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return f'tar:{path}'


def write_compressed_tar(path, files):
    return write_tar(path, files, 'w:gz')


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return f'folder:{path}'


WRITERS = [write_zip, write_deflated, write_tar, write_compressed_tar, write_folder]
every_kind = pytest.mark.parametrize('write', WRITERS)
every_archive = pytest.mark.parametrize('write', WRITERS[:-1])


def load(source, split='train'):
    return loading.load(source, split, (8, 8), 1, 0.25)


@every_kind
def test_what_edms_dataset_tool_writes_is_read_with_its_labels(tmp_path, write):
    source = write(tmp_path / 'data', of_edm())
    found = {}
    for split in loading.SPLITS:
        batch = everything(load(source, split))
        found |= dict(zip(numbers([batch]), batch['label'].tolist(), strict=True))
    assert found == {i: i % 4 for i in range(NUM)}


@every_archive
def test_an_archive_holds_the_images_and_the_splits_of_its_folder(tmp_path, write):
    sources = write(tmp_path / 'archive', of_edm()), write_folder(tmp_path / 'folder', of_edm())
    for split in loading.SPLITS:
        archive, folder = (load(source, split) for source in sources)
        np.testing.assert_array_equal(everything(archive)['image'], everything(folder)['image'])
        assert archive.fingerprint == folder.fingerprint


@every_kind
def test_without_labels_folders_of_the_tool_are_no_classes(tmp_path, write):
    batch = everything(load(write(tmp_path / 'data', of_edm({'labels': None}))))
    assert set(batch['label']) == {-1}


@every_kind
def test_images_that_are_not_listed_have_no_label(tmp_path, write):
    labels = {'labels': [*LABELS['labels'][1:], ['00009/gone.png', 9]]}
    source = write(tmp_path / 'data', of_edm(labels))
    found = {}
    for split in loading.SPLITS:
        batch = everything(load(source, split))
        found |= dict(zip(numbers([batch]), batch['label'].tolist(), strict=True))
    assert found == {i: i % 4 if i else -1 for i in range(NUM)}


@every_kind
def test_a_fingerprint_changes_with_the_labels_that_dataset_json_gives(tmp_path, write):
    swapped = {'labels': [[name, (label + 1) % 4] for name, label in LABELS['labels']]}
    first, same, other = (
        load(write(tmp_path / f'{i}', of_edm(labels)))
        for i, labels in enumerate([LABELS, LABELS, swapped])
    )
    assert first.fingerprint == same.fingerprint
    assert first.fingerprint != other.fingerprint


@every_archive
def test_folders_in_archives_are_splits_and_classes(tmp_path, write):
    names = ['x/train/b/1', 'x/train/a/0', 'x/val/b/2', '__MACOSX/x/train/c/3', 'x/.hidden/4']
    source = write(tmp_path / 'data', {f'{name}.png': png(int(name[-1])) for name in names})
    train, test = (load(source, split) for split in loading.SPLITS)
    assert (numbers([everything(train)]), everything(train)['label'].tolist()) == ([0, 1], [0, 1])
    assert (numbers([everything(test)]), everything(test)['label'].tolist()) == ([2], [1])
    assert train.class_names == ('a', 'b')


def test_separators_of_windows_are_separators(tmp_path):
    files = {f'train\\{name}\\{i}.png': png(i) for i, name in enumerate('ab')}
    source = write_deflated(tmp_path / 'data', files | {'test\\b\\2.png': png(2)})
    train, test = (everything(load(source, split)) for split in loading.SPLITS)
    assert (train['label'].tolist(), test['label'].tolist()) == ([0, 1], [1])


@every_kind
def test_each_split_may_have_a_file_of_labels(tmp_path, write):
    files = {
        'train/00000/1.png': png(1),
        'train/dataset.json': json.dumps({'labels': [['00000/1.png', 3]]}).encode(),
        'test/00000/2.png': png(2),
        'test/dataset.json': json.dumps({'labels': [['00000/2.png', 5]]}).encode(),
    }
    source = write(tmp_path / 'data', files)
    assert [load(source, split)[0]['label'] for split in loading.SPLITS] == [3, 5]


@every_archive
def test_threads_read_at_the_same_time(tmp_path, monkeypatch, write):
    monkeypatch.setattr(loading, 'CACHE_BYTES', 0)
    images = load(write(tmp_path / 'data', of_edm()))
    expected = numbers([everything(images)])
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = [numbers([batch]) for batch in pool.map(everything, [images] * 50)]
    assert found == [expected] * 50


FORKS = """
import os, sys
from datasets import archives
kind, path = sys.argv[1:]
entries = list(
    archives.zip_entries(path, path)
    if kind == 'zip'
    else archives.tar_entries(path, path, lambda name: True)
)
expected = [entry.member.read() for entry in entries]
children = []
for _ in range(4):
    child = os.fork()
    if not child:
        same = all([entry.member.read() for entry in entries] == expected for _ in range(50))
        os._exit(0 if same else 1)
    children.append(child)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


@every_archive
def test_forked_processes_read_at_the_same_time(tmp_path, write):
    """They have the files that the first one has open, and so their positions."""
    kind, _, path = write(tmp_path / 'data', of_edm()).partition(':')
    done = subprocess.run([sys.executable, '-c', FORKS, kind, path], cwd=ROOT, timeout=60)
    assert done.returncode == 0


@every_archive
def test_the_places_of_files_can_be_sent_to_another_process(tmp_path, write):
    kind, _, path = write(tmp_path / 'data', of_edm()).partition(':')
    if kind == 'zip':
        entries = list(archives.zip_entries(path, path))
    else:
        entries = list(archives.tar_entries(path, path, lambda name: True))
    sent = pickle.loads(pickle.dumps(entries))
    assert [one.member.read() for one in sent] == [one.member.read() for one in entries]


# What is found at the start


@every_archive
@pytest.mark.parametrize('limit', [image_files.VERIFY_BYTES, -1], ids=['small', 'large'])
def test_broken_images_in_archives_are_named(tmp_path, monkeypatch, write, limit):
    monkeypatch.setattr(image_files, 'VERIFY_BYTES', limit)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'PNG')
    files = of_edm() | {'00000/cut.png': stream.getvalue()[:1000], '00001/x.png': b'text'}
    source = write(tmp_path / 'data', files)
    with pytest.raises(DataError, match=r'data/00000/cut\.png is not an image .* 1 other files'):
        load(source)


def test_of_large_archives_headers_alone_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, 'VERIFY_BYTES', -1)
    monkeypatch.setattr(image_files, 'HEADER_BYTES', 2000)
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'PNG')
    source = write_zip(tmp_path / 'data', {f'{i}.png': stream.getvalue() for i in range(5)})
    read, asked = archives._slice, []

    def noting(path, offset, size, start=0, length=None):
        asked.append(size - start if length is None else length)
        return read(path, offset, size, start, length)

    monkeypatch.setattr(archives, '_slice', noting)
    load(source)
    assert max(asked) == 2000


def test_zip_archives_that_are_cut_short_are_refused(tmp_path):
    source = write_zip(tmp_path / 'data', of_edm())
    content = (tmp_path / 'data').read_bytes()
    (tmp_path / 'data').write_bytes(content[:-12_000])
    with pytest.raises(DataError, match=r'data is no zip archive, or one that is cut short'):
        load(source)


def cut(path):
    """By where it is, so much of an archive as is before: member 20, in its header, and so on."""
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        end = archive.offset
    middle = members[20]
    return {
        'between members': middle.offset,
        'in a header': middle.offset + 100,
        'in data': middle.offset_data + 10,
        'in padding': middle.offset_data + middle.size + 1,
        'before the end': end,
        'in the end': end + 100,
    }


CUTS = ['between members', 'in a header', 'in data', 'in padding', 'before the end', 'in the end']


@pytest.mark.parametrize('place', CUTS)
@pytest.mark.parametrize('pack', [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_tar_archives_that_are_cut_short_are_refused(tmp_path, place, pack):
    """Those that were cut before they were compressed, too."""
    path = tmp_path / 'data'
    source = write_tar(path, of_edm())
    content = path.read_bytes()
    path.write_bytes(pack(content[: cut(path)[place]]))
    with pytest.raises(DataError, match=r'data is no tar archive, or one that is cut short') as why:
        load(source)
    assert 'held in memory' not in str(why.value)
    path.write_bytes(pack(content))
    assert len(load(source)) + len(load(source, 'test')) == NUM


def test_a_tar_archive_that_is_cut_short_is_not_taken_for_a_compressed_one(tmp_path, monkeypatch):
    """However large it is."""
    path = tmp_path / 'data'
    source = write_tar(path, of_edm())
    path.write_bytes(path.read_bytes()[: cut(path)['in data']])
    monkeypatch.setattr(archives, 'HELD_BYTES', 1000)
    with pytest.raises(DataError, match='is no tar archive, or one that is cut short'):
        load(source)


@pytest.mark.parametrize('pack', [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_tar_archives_that_are_damaged_are_refused(tmp_path, pack):
    """Where it was compressed, or at the end, in the checksum."""
    path = tmp_path / 'data'
    source = write_tar(path, of_edm())
    content = pack(path.read_bytes())
    for place in (len(content) // 2, len(content) - 6):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(DataError, match='data is no tar archive, or one .* damaged') as why:
            load(source)
        assert '\n' not in str(why.value)


@pytest.mark.parametrize('mode', ['w', 'w:gz'])
@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=['symbolic', 'hard'])
def test_links_in_tar_archives_are_left_out_and_that_is_said(tmp_path, capsys, mode, kind):
    path = tmp_path / 'data'
    with tarfile.open(path, mode) as archive:
        for i in range(4):
            info = tarfile.TarInfo(f'{i}.png')
            info.size = len(png(i))
            archive.addfile(info, io.BytesIO(png(i)))
        for name in ('link.png', 'link.txt'):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, '0.png'
            archive.addfile(info)
    assert len(load(f'tar:{path}')) + len(load(f'tar:{path}', 'test')) == 4
    assert capsys.readouterr().out == (
        f'data.source tar:{path}: 1 of its files are links, and are left out; unpack the archive, '
        'and they are followed\n'
    )


def test_an_archive_that_shrinks_while_it_is_read_is_named(tmp_path):
    source = write_tar(tmp_path / 'data', of_edm())
    images = load(source)
    os.truncate(tmp_path / 'data', 600)
    with pytest.raises(DataError, match=r'not an image that can be decoded \(.*data is cut short'):
        everything(images)


def test_a_flaw_in_a_compressed_file_is_named(tmp_path):
    source = write_deflated(tmp_path / 'data', of_edm())
    path = tmp_path / 'data'
    content = bytearray(path.read_bytes())
    content[60:64] = b'\xff\xff\xff\xff'
    path.write_bytes(content)
    with pytest.raises(DataError, match=r'img00000000\.png is not an image that can be decoded'):
        load(source)


def test_encrypted_archives_are_refused(tmp_path):
    source = write_zip(tmp_path / 'data', of_edm())
    content = bytearray((tmp_path / 'data').read_bytes())
    # The flags of the first file in the directory at the end.
    content[content.index(b'PK\1\2') + 8] |= 1
    (tmp_path / 'data').write_bytes(content)
    with pytest.raises(DataError, match=r'img00000000\.png is encrypted; unpack the archive'):
        load(source)


def test_compressed_tar_archives_that_do_not_fit_into_memory_are_refused(tmp_path, monkeypatch):
    source = write_compressed_tar(tmp_path / 'data', of_edm())
    monkeypatch.setattr(archives, 'HELD_BYTES', 1000)
    with pytest.raises(DataError, match='is compressed, and its images take over 1,000 bytes'):
        load(source)


@every_archive
def test_what_is_not_clear_is_refused_as_in_folders(tmp_path, write):
    source = write(tmp_path / 'data', {'train/0.png': png(0), 'extra/1.png': png(1)})
    with pytest.raises(DataError, match='train/ may be a split, .* unpack the archive'):
        load(source)
    with pytest.raises(DataError, match=f'{source} holds no images; .*; 1 file of another type sk'):
        load(write(tmp_path / 'data', {'a.txt': b'text'}))


@pytest.mark.parametrize('kind', ['zip', 'tar'])
def test_archives_that_are_missing_are_refused(tmp_path, kind):
    with pytest.raises(DataError, match='there is no such file'):
        load(f'{kind}:{tmp_path}/nowhere')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'{', 'dataset.json cannot be read: Expecting'),
        (b'[]', r'dataset.json is no list of labels; \{"labels"'),
        (b'{"labels": [1]}', 'dataset.json is no list of labels'),
        (b'{"labels": [["00000/img00000000.png", -1]]}', 'the label -1 for 00000/img00000000.png'),
        (b'{"labels": [["00000/img00000000.png", [0, 1]]]}', r'the label \[0, 1\] for 00000'),
        (b'{"labels": [["00000/img00000000.png", 0.5]]}', 'the label 0.5 for'),
    ],
)
def test_files_of_labels_that_are_something_else_are_refused(tmp_path, content, message):
    source = write_zip(tmp_path / 'data', of_edm() | {'dataset.json': content})
    with pytest.raises(DataError, match=message) as error:
        load(source)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'hint'),
    [('x.zip', 'zip'), ('x.tar', 'tar'), ('x.tar.gz', 'tar'), ('x.tgz', 'tar'), ('x.npz', 'npz')],
)
def test_a_path_alone_is_refused_with_the_source_that_reads_it(tmp_path, name, hint):
    (tmp_path / name).write_bytes(b'')
    with pytest.raises(DataError, match=f'similar: {hint}:{tmp_path / name};'):
        load(str(tmp_path / name))

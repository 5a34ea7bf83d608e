"""Files that appear whole or not at all."""

import errno
import os
import pathlib

import pytest

from choices import InputError, RunError
from storage import files


def test_what_is_written_takes_the_place_of_the_file(tmp_path):
    path = tmp_path / 'new' / 'a.txt'
    for content in ('first', 'second'):
        with files.replacing(path) as draft:
            draft.write_text(content)
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def write_half(path):
    """Interrupted after the first half."""
    with files.replacing(path) as draft:
        draft.write_text('ha')
        raise KeyboardInterrupt


def test_an_interruption_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('whole')
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert path.read_text() == 'whole'
    assert list(tmp_path.iterdir()) == [path]


def test_two_who_write_a_file_at_the_same_time_do_not_meet(tmp_path):
    path = tmp_path / 'a.txt'
    with files.replacing(path) as first, files.replacing(path) as second:
        first.write_text('first')
        second.write_text('second')
    assert path.read_text() == 'first'  # Which was put in its place later.
    assert list(tmp_path.iterdir()) == [path]


def test_the_draft_has_the_suffix_of_the_file(tmp_path):
    with files.replacing(tmp_path / 'a.npz') as draft:
        assert draft.suffix == '.npz'
        draft.touch()


def write_to_full_disk(path):
    """Beside a file, as the draft that would take its place."""
    with files.replacing(path) as draft:
        draft.symlink_to('/dev/full')
        draft.write_text('new')


def test_a_full_disk_leaves_the_file_as_it_was_and_no_draft(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('whole')
    with pytest.raises(RunError, match=r'a\.txt cannot be written: No space left on device; what'):
        write_to_full_disk(path)
    assert path.read_text() == 'whole'
    assert list(tmp_path.iterdir()) == [path]


def test_a_tilde_is_a_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    for given, expected in (
        ('~', tmp_path),
        ('~/runs/a', tmp_path / 'runs' / 'a'),
        ('runs/~', pathlib.Path('runs/~')),
        ('./~', pathlib.Path('~')),
    ):
        assert files.user_path(given, '--workdir') == expected


@pytest.mark.parametrize(
    ('given', 'said'),
    [('', 'a path is needed, and it is empty'), ('~nobody_here/a', '.*known of ~nobody_here')],
)
def test_a_path_that_leads_nowhere_is_refused(given, said):
    with pytest.raises(InputError, match=f'^--workdir: {said}$'):
        files.user_path(given, '--workdir')


def test_a_directory_that_can_be_made_or_written_to_is_fine_and_is_not_made(tmp_path):
    for path in (tmp_path, tmp_path / 'new' / 'deeper'):
        files.check_directory(path, '--workdir')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['file', 'file/below', 'nowhere', 'nowhere/below'])
def test_no_directory_is_below_a_file_or_a_link_to_nothing(name, tmp_path):
    (tmp_path / 'file').touch()
    (tmp_path / 'nowhere').symlink_to(tmp_path / 'missing')
    with pytest.raises(InputError, match=r'^--workdir: .*/(file|nowhere) is no directory, and one'):
        files.check_directory(tmp_path / name, '--workdir')


@pytest.mark.parametrize('code', [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_directory_that_cannot_be_written_to_is_refused(code, tmp_path, monkeypatch):
    """Root may write everywhere: the system's refusal is a fake."""

    def refuse(**_):
        raise OSError(code, os.strerror(code), 'a temporary name')

    monkeypatch.setattr(files.tempfile, 'TemporaryFile', refuse)
    with pytest.raises(InputError, match=f'nothing can be written to .*: {os.strerror(code)}$'):
        files.check_directory(tmp_path, '--workdir')


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(InputError, match=r'--workdir: .*: File name too long$'):
        files.check_directory(tmp_path / ('a' * 300), '--workdir')

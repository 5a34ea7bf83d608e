"""Files that appear whole or not at all."""

import pytest

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


def test_the_draft_has_the_suffix_of_the_file(tmp_path):
    with files.replacing(tmp_path / 'a.npz') as draft:
        assert draft.suffix == '.npz'
        draft.touch()

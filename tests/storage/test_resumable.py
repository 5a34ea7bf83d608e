"""What was computed is not computed again, and what is damaged is."""

import numpy as np
import pytest

from storage import resumable


def made(calls):
    """A function that counts its calls, and returns their number."""

    def make():
        calls.append(None)
        return {'number': np.int64(len(calls)), 'rows': np.arange(5.0)}

    return make


def test_a_part_is_made_once_and_comes_back_as_it_was(tmp_path):
    calls = []
    first, again = (resumable.keep(tmp_path / 'parts', 3, made(calls)) for _ in range(2))
    assert len(calls) == 1
    assert first.keys() == again.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)
        assert again[name].dtype == value.dtype


def test_parts_of_other_indices_and_directories_are_others(tmp_path):
    calls = []
    for directory, index in (('a', 0), ('a', 1), ('b', 0)):
        resumable.keep(tmp_path / directory, index, made(calls))
    assert len(calls) == 3


def test_without_a_directory_nothing_is_kept():
    calls = []
    assert [int(resumable.keep(None, 0, made(calls))['number']) for _ in range(2)] == [1, 2]


@pytest.mark.parametrize('length', [0, 10, 200])
def test_a_part_that_is_damaged_is_made_again(tmp_path, length):
    calls = []
    resumable.keep(tmp_path, 0, made(calls))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:length])
    assert resumable.keep(tmp_path, 0, made(calls))['number'] == 2
    assert resumable.keep(tmp_path, 0, made(calls))['number'] == 2


def test_what_is_interrupted_leaves_no_part(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resumable.keep(tmp_path, 0, interrupted)
    assert resumable.load(tmp_path / '000000.npz') is None

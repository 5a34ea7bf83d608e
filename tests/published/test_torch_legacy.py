"""PyTorch's files from before version 1.6: one as PyTorch wrote it, cut ones and hostile ones."""

import os
import pickle

import numpy as np
import pytest

from choices import InputError
from published import torch_legacy
from tests.support import golden

WRITTEN = golden.DATA / 'torch_layouts_before_1_6.pth'


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_all_is_what_pytorch_saved():
    found, expected = torch_legacy.load(WRITTEN), golden.load('torch_layouts')
    assert len(found['tensors']) == 12
    for name, value in found['tensors'].items():
        np.testing.assert_array_equal(value.astype(float), expected[f'tensors/{name}'], name)
    assert found['optimizer']['param_groups'][0]['lr'] == expected['lr']


@pytest.mark.parametrize('length', [15, 60, 200, 1000, 5000, -1])
def test_a_cut_file_is_refused(length, tmp_path):
    (tmp_path / 'cut.pth').write_bytes(WRITTEN.read_bytes()[:length])
    with pytest.raises(InputError, match='read safely'):
        torch_legacy.load(tmp_path / 'cut.pth')


@pytest.mark.parametrize('place', range(5))
def test_a_pickle_that_acts_is_refused_before_it_does(place, tmp_path):
    attack = pickle.dumps(Attack(tmp_path / 'made'), 2)
    harmless = pickle.dumps([], 2)
    parts = [torch_legacy.MAGIC, *[harmless] * 4]
    parts[place] = attack
    (tmp_path / 'a.pth').write_bytes(b''.join(parts))
    with pytest.raises(InputError, match=r'it names posix\.mkdir'):
        torch_legacy.load(tmp_path / 'a.pth')
    assert not (tmp_path / 'made').exists()


def test_a_small_file_makes_no_large_array(tmp_path):
    """Its storage of two elements says that it has 10^9."""
    content = (golden.DATA / 'torch_before_1_6.pth').read_bytes()
    numel = pickle.dumps(10**9, 2)[2:-1]
    old = b'K\x02N'
    assert content.count(old) == 1
    (tmp_path / 'a.pth').write_bytes(content.replace(old, numel + b'N'))
    with pytest.raises(InputError, match='a storage of 1000000000 elements in a smaller file'):
        torch_legacy.load(tmp_path / 'a.pth')

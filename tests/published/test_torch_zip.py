"""PyTorch's files without PyTorch: files written by PyTorch 2.13, and hostile ones."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from choices import InputError
from published import torch_zip
from tests.support import golden, torch_writer

WRITTEN = golden.DATA / 'torch_layouts.pth'


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_tensors_of_all_layouts_and_types_are_those_that_pytorch_saved():
    found = torch_zip.load(WRITTEN)['tensors']
    expected = golden.load('torch_layouts')
    assert len(found) == 12
    for name, value in found.items():
        np.testing.assert_array_equal(value.astype(float), expected[f'tensors/{name}'], name)


def test_the_optimizer_has_numpy_learning_rates_and_moments():
    """As in score_sde_pytorch, whose warm-up makes numpy scalars; `weights_only` refuses them."""
    optimizer, expected = torch_zip.load(WRITTEN)['optimizer'], golden.load('torch_layouts')
    assert optimizer['param_groups'][0]['lr'] == expected['lr'] == 2e-4
    for i, state in optimizer['state'].items():
        for name, value in state.items():
            np.testing.assert_array_equal(value, expected[f'optimizer/{i}/{name}'])
    assert sorted(optimizer['state']) == [1, 2, 3, 4]  # Parameter 0 is frozen.


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_pickle_that_acts_is_refused_before_it_does(protocol, tmp_path):
    attack = pickle.dumps({'model': Attack(tmp_path / 'made')}, protocol)
    pickle.loads(attack)
    (tmp_path / 'made').rmdir()  # It would have worked.
    torch_writer.write_program(tmp_path / 'hostile.pth', attack)
    with pytest.raises(InputError, match=r'read safely: it names posix\.mkdir'):
        torch_zip.load(tmp_path / 'hostile.pth')
    assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize('name', ['builtins eval', 'torch _utils', 'numpy load', 'torch.hub load'])
def test_what_a_checkpoint_does_not_need_is_not_looked_up(name, tmp_path):
    torch_writer.write_program(tmp_path / 'a.pth', f'c{name.replace(" ", chr(10))}\n.'.encode())
    with pytest.raises(InputError, match='it names ' + name.replace(' ', r'\.')):
        torch_zip.load(tmp_path / 'a.pth')


@pytest.mark.parametrize(
    ('size', 'stride', 'offset'),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((3,), (3,), 0),
        ((2, 3), (3, 1), 1000),
        ((1000,), (0,), 0),
        ((6,), (-1,), 5),
        ((0,), (1,), 0),
        ((2,), (1.0,), 0),
    ],
)
def test_no_tensor_reaches_beyond_its_storage(size, stride, offset, tmp_path):
    array = np.arange(6, dtype=np.float32)
    torch_writer.write(tmp_path / 'a.pth', torch_writer.Tensor(array, size, stride, offset))
    with pytest.raises(InputError, match='a tensor of size'):
        torch_zip.load(tmp_path / 'a.pth')


def test_a_compressed_storage_is_refused(tmp_path):
    """PyTorch compresses nothing; a small file could become a large array."""
    torch_writer.write(tmp_path / 'plain.pth', np.zeros(1000, np.float32))
    with (
        zipfile.ZipFile(tmp_path / 'plain.pth') as plain,
        zipfile.ZipFile(tmp_path / 'a.pth', 'w', zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    assert torch_zip.load(tmp_path / 'plain.pth').shape == (1000,)
    with pytest.raises(InputError, match='archive/data/0 is compressed'):
        torch_zip.load(tmp_path / 'a.pth')


@pytest.mark.parametrize('length', [100, 5000, -100])
def test_a_cut_file_is_refused(length, tmp_path):
    (tmp_path / 'cut.pth').write_bytes(WRITTEN.read_bytes()[:length])
    with pytest.raises(InputError, match='can be read safely'):
        torch_zip.load(tmp_path / 'cut.pth')

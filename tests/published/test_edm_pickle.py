"""EDM's pickles: recorded ones, cut ones and hostile ones."""

import collections
import os
import pickle
import pickletools

import numpy as np
import pytest

from choices import InputError
from published import edm_pickle
from tests.support import edm, golden

WRITTEN = golden.DATA / 'published_edm_ddpmpp.pkl'


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('name', ['ddpmpp', 'ncsnpp'])
def test_a_network_is_a_class_its_arguments_and_its_state(name):
    path = golden.DATA / f'published_edm_{name}.pkl'
    assert edm_pickle.is_pickle(path)
    found = edm_pickle.load(path)
    assert found.kind == 'EDMPrecond'
    assert found.arguments['model_channels'] == 16
    shapes = {k: v.shape for k, v in found.state.items() if 'map_augment' not in k}
    assert shapes == edm.song(**found.arguments)
    assert {value.dtype for value in found.state.values()} == {np.dtype('float32')}


def without_frames(content):
    """A pickle without the lengths that it says of what follows."""
    starts = [at for opcode, _, at in pickletools.genops(content) if opcode.name == 'FRAME']
    ends = [at + 9 for at in starts]
    return b''.join(content[a:b] for a, b in zip([0, *ends], [*starts, None], strict=True))


@pytest.mark.parametrize('protocol', [2, 4])
def test_a_pickle_that_acts_does_not(protocol, tmp_path):
    attack = pickle.dumps({'ema': Attack(tmp_path / 'made')}, protocol)
    pickle.loads(attack)
    (tmp_path / 'made').rmdir()  # It would have worked.
    (tmp_path / 'a.pkl').write_bytes(attack)
    with pytest.raises(InputError, match=r"a\.pkl: a pickle, and not one of EDM's networks"):
        edm_pickle.load(tmp_path / 'a.pkl')
    assert not (tmp_path / 'made').exists()


def test_beside_a_network_nothing_acts_either(tmp_path):
    """Its dictionary gets one more entry, before the last two opcodes: SETITEMS and STOP."""
    attack = pickle.dumps(Attack(tmp_path / 'made'), 2)[2:-1]
    content = without_frames(WRITTEN.read_bytes())
    assert content.endswith(b'u.')
    (tmp_path / 'a.pkl').write_bytes(content[:-2] + b'X\1\0\0\0a' + attack + b'u.')
    found = edm_pickle.load(tmp_path / 'a.pkl')
    assert found.state.keys() == edm_pickle.load(WRITTEN).state.keys()
    assert not (tmp_path / 'made').exists()


def test_what_stands_beside_a_network_may_be_of_any_class(tmp_path):
    class_ = collections.Counter({'a': 1})
    beside = {'augment_pipe': class_, 'b': {1, 2}, 'c': np.arange(3), 'd': slice(1, 2)}
    for protocol in (2, 4, 5):
        (tmp_path / 'a.pkl').write_bytes(pickle.dumps(beside, protocol))
        with pytest.raises(InputError, match=r"not one of EDM's networks: KeyError\('ema'\)"):
            edm_pickle.load(tmp_path / 'a.pkl')


@pytest.mark.parametrize('length', [2, 100, 5000, 500_000, -1])
def test_a_cut_file_is_refused(length, tmp_path):
    (tmp_path / 'cut.pkl').write_bytes(WRITTEN.read_bytes()[:length])
    with pytest.raises(InputError, match=r'cut\.pkl: not a pickle that can be read safely'):
        edm_pickle.load(tmp_path / 'cut.pkl')


@pytest.mark.parametrize(
    'content',
    [
        {},
        {'ema': 1},
        [1],
        {'ema': collections.OrderedDict(state=1)},
    ],
    ids=str,
)
def test_other_pickles_are_refused(content, tmp_path):
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"a\.pkl: a pickle, and not one of EDM's networks"):
        edm_pickle.load(tmp_path / 'a.pkl')


@pytest.mark.parametrize('content', [b'', b'\x80', b'\x80\x01', b'\x84\x04', b'PK\3\4'])
def test_other_files_are_no_pickles(content, tmp_path):
    (tmp_path / 'a').write_bytes(content)
    assert not edm_pickle.is_pickle(tmp_path / 'a')

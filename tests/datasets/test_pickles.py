"""Pickles of arrays: what is read, and that nothing is executed."""

import os
import pickle

import numpy as np
import pytest

from datasets import pickles

ARRAYS = [
    np.arange(6, dtype=np.uint8).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4, dtype='>i4'),
    np.array([True, False]),
]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back_from_every_protocol(protocol):
    content = {'arrays': ARRAYS, 'number': np.int64(7), 'text': 'é', 'bytes': b'\xff'}
    found = pickles.loads(pickle.dumps(content, protocol))
    for array, back in zip(ARRAYS, found['arrays'], strict=True):
        np.testing.assert_array_equal(np.asarray(back), array)
        assert np.asarray(back).dtype == array.dtype
    assert (found['number'], found['text'], found['bytes']) == (7, 'é', b'\xff')


@pytest.mark.parametrize('named', [os.system, pickle.loads, eval, np.load, np.ndarray.tofile])
def test_other_names_are_refused(named):
    with pytest.raises(pickle.UnpicklingError, match='it names'):
        pickles.loads(pickle.dumps(named))


@pytest.mark.parametrize(
    'content',
    [b'', b'text', pickle.dumps(ARRAYS[0])[:-20], pickle.dumps(np.array([{}], object))],
    ids=['empty', 'text', 'cut', 'objects'],
)
def test_what_is_no_pickle_of_arrays_is_refused(content):
    with pytest.raises(pickles.BROKEN):
        pickles.loads(content)

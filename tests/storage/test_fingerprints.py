"""Short names change with what they are of, and with nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from storage import fingerprints

GIVEN = [1, {'data': 2, 'fsdp': 1}, 0.1, 'text', None, (1, 2)]
PARAMS = {'kernel': jnp.arange(6.0).reshape(2, 3), 'bias': jnp.ones(3)}


@pytest.mark.parametrize('place', range(len(GIVEN)))
def test_a_fingerprint_changes_with_each_value(place):
    changed = [*GIVEN[:place], 'other', *GIVEN[place + 1 :]]
    assert fingerprints.fingerprint(changed) != fingerprints.fingerprint(GIVEN)


def test_a_fingerprint_does_not_depend_on_the_order_of_names():
    turned = dict(reversed(GIVEN[1].items()))
    assert fingerprints.fingerprint(turned) == fingerprints.fingerprint(GIVEN[1])


def test_fingerprints_are_the_same_in_every_process_and_for_good():
    """Directories of results that exist are named by them."""
    assert fingerprints.fingerprint(GIVEN) == 'adf96bd8f9'


def test_a_checksum_changes_with_a_bit_and_with_the_places_of_arrays():
    flipped = PARAMS['bias'].at[1].set(np.nextafter(np.float32(1), np.float32(2)))
    swapped = {'kernel': PARAMS['bias'], 'bias': PARAMS['kernel']}
    found = [int(fingerprints.checksum(p)) for p in (PARAMS, PARAMS | {'bias': flipped}, swapped)]
    assert len(set(found)) == 3


def test_a_checksum_is_that_of_the_same_arrays_in_other_containers():
    as_lists = {'a': [PARAMS['bias']], 'b': (PARAMS['kernel'],)}
    assert fingerprints.checksum(as_lists) == fingerprints.checksum(PARAMS)
    assert fingerprints.checksum(jax.device_get(PARAMS)) == fingerprints.checksum(PARAMS)


def test_a_fingerprint_of_arrays_changes_with_every_number_and_place():
    given = [{'a': np.arange(3.0), 'b': None}, {'a': np.array([1.0, 0.0, 2.0]), 'b': None}]
    given += [{'a': np.arange(3), 'b': None}, {'b': np.arange(3.0), 'a': None}, np.arange(3.0)]
    assert len(set(map(fingerprints.of_arrays, given))) == len(given)
    assert fingerprints.of_arrays({'a': np.arange(3.0), 'b': None}) == fingerprints.of_arrays(
        given[0]
    )

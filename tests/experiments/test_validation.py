"""Fields, types and ranges of configs."""

import math

import pytest
from ml_collections import ConfigDict

from choices import InputError
from configs import ranges
from experiments import validation
from storage import workdirs
from tests.experiments import test_configs

FIELDS = sorted(
    {
        field: network
        for network in validation.SECTIONS
        for field in workdirs.flatten(validation.reference(network).to_dict())
    }.items()
)


def changed(network, field, value):
    """The fields of an experiment with a network, one of them changed."""
    tree = validation.reference(network).to_dict()
    *path, name = field.split('.')
    section = tree[path[0]] if path else tree
    section[name] = value
    return ConfigDict(tree)


@pytest.mark.parametrize('name', test_configs.ALL)
def test_experiments_pass(name):
    validation.check(test_configs.load(name))


@pytest.mark.parametrize('network', validation.SECTIONS)
def test_the_defaults_pass_with_every_network(network):
    validation.check(validation.reference(network))


def test_every_range_is_of_a_field():
    known = dict(FIELDS)
    assert {*ranges.RANGES, *ranges.ELEMENTS, *ranges.LENGTHS} <= known.keys()


@pytest.mark.parametrize(('field', 'network'), FIELDS)
def test_no_field_takes_any_type(field, network):
    for value in ({'a': 1}, object, b'a', [[1]], ['a', 1.5]):
        with pytest.raises(InputError, match=f'^{field}'):
            validation.check(changed(network, field, value))


def outside(allowed):
    """Numbers next to the ends of a range, and what is in none."""
    yield from (math.inf, -math.inf, math.nan)
    if isinstance(allowed, ranges.Range):
        yield allowed.low if allowed.without_low else allowed.low - 1e-9 - abs(allowed.low) * 1e-9
        yield allowed.high if allowed.without_high else 2 * allowed.high + 1


@pytest.mark.parametrize('field', ranges.RANGES)
def test_numbers_out_of_range_are_refused(field):
    allowed = ranges.RANGES[field]
    default = workdirs.flatten(validation.reference(dict(FIELDS)[field]).to_dict())[field]
    for number in outside(allowed):
        assert number not in allowed
        length = int(ranges.LENGTHS.get(field, ranges.Range(1)).low) or 1
        value = (number,) * length if isinstance(default, tuple) else number
        with pytest.raises(InputError, match=f'^{field}: '):
            validation.check(changed(dict(FIELDS)[field], field, value))


@pytest.mark.parametrize(
    ('allowed', 'text'),
    [
        (ranges.Range(0, without_low=True), 'above 0'),
        (ranges.Range(0, 1, without_high=True), 'of at least 0 and below 1'),
        (ranges.Range(2, 2000), 'of at least 2 and at most 2,000'),
        (ranges.ANY, 'that is finite'),
        (ranges.OneOf((1, 3)), 'that is one of 1, 3'),
    ],
)
def test_ranges_are_told_in_words(allowed, text):
    assert str(allowed) == text

"""Names and numbers that callers choose, and the lines that refuse others."""

import dataclasses
import math

import pytest

import choices
from choices import ArgumentError, OneOf, Range, fields_of, option


@pytest.mark.parametrize(
    ('allowed', 'text'),
    [
        (Range(0, without_low=True), 'a number above 0'),
        (Range(0, 1, without_high=True), 'a number of at least 0 and below 1'),
        (Range(2, 2000), 'a number of at least 2 and at most 2,000'),
        (Range(-math.inf), 'a number that is finite'),
        (OneOf((1, 3)), 'one of 1, 3'),
    ],
)
def test_what_is_allowed_is_told_in_words(allowed, text):
    assert str(allowed) == text


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Options of every kind."""

    share: float = option(0.5, 'how much', Range(0, 1))
    sides: tuple[int, ...] = option((1, 2), 'of squares', Range(1))
    kind: str = option('a', 'which', {'a': 1, 'b': 2})
    size: int = option(1, 'how large', OneOf((1, 3)))
    other: str = 'anything'


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'share': 1.5}, 'share: 1.5; a number of at least 0 and at most 1 needed'),
        ({'sides': (1, 0)}, 'sides: 0; a number of at least 1 needed'),
        ({'kind': 'c'}, "kind: unknown name 'c'.*; known: a, b"),
        ({'size': 2}, 'size: 2; one of 1, 3 needed'),
    ],
)
def test_options_that_are_not_allowed_are_refused(given, message):
    choices.check_options(Chosen(other='x'))
    with pytest.raises(ArgumentError, match=f'^{message}'):
        choices.check_options(Chosen(**given))


def test_errors_of_arguments_become_errors_of_fields():
    elsewhere = fields_of('model', size='data.size')
    with pytest.raises(choices.InputError, match='^data.size: 3; too large'), elsewhere:
        raise ArgumentError('size', '3; too large')
    with pytest.raises(choices.InputError, match='^model.depth: 3; too large'), fields_of('model'):
        raise ArgumentError('depth', '3; too large')

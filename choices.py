"""What callers choose, by name or by number, and the errors that tell them what they can choose.

Every dictionary from names to what is named is read through `choose`. The method knows arguments
and no fields: its errors are ArgumentErrors, and where a config is read `fields_of` makes of their
arguments the fields that a user has written.
"""

import contextlib
import difflib
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

Value = TypeVar('Value')


# Errors


class InputError(ValueError):
    """A flag, a config or a file cannot be used. One line: which, what it is, what is allowed."""


class ArgumentError(InputError):
    """An argument of a function cannot be used: its name, what it is, what is allowed."""

    def __init__(self, argument: str, reason: str):
        super().__init__(argument, reason)
        self.argument, self.reason = argument, reason

    def __str__(self) -> str:
        return f'{self.argument}: {self.reason}'


class RunError(RuntimeError):
    """A run cannot go on. One line: why, what is safe, and what to do."""


@contextlib.contextmanager
def fields_of(section: str, **elsewhere: str) -> Iterator[None]:
    """Within it an ArgumentError becomes an InputError that names a field: that of the section with
    the argument's name, or the one that `elsewhere` has for the argument.
    """
    try:
        yield
    except ArgumentError as error:
        field = elsewhere.get(error.argument, f'{section}.{error.argument}')
        raise InputError(f'{field}: {error.reason}') from error


# Names


def choose(choices: Mapping[str, Value], name: str, argument: str) -> Value:
    """`choices[name]`; raises ArgumentError with the closest name and all known names."""
    if name in choices:
        return choices[name]
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f' (did you mean {close[0]!r}?)' if close else ''
    raise ArgumentError(argument, f'unknown name {name!r}{hint}; known: {", ".join(choices)}')


# Numbers


class Range(NamedTuple):
    """Finite numbers from `low` to `high`, of which `low` and `high` may be excluded."""

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def __contains__(self, number: float) -> bool:
        above = number > self.low if self.without_low else number >= self.low
        below = number < self.high if self.without_high else number <= self.high
        return above and below and math.isfinite(number)

    def __str__(self) -> str:
        low = f'{"above" if self.without_low else "of at least"} {self.low:g}'
        if self.high == math.inf:
            return 'that is finite' if self.low == -math.inf else low
        return f'{low} and {"below" if self.without_high else "at most"} {self.high:,}'


class OneOf(tuple):
    """A few numbers."""

    def __str__(self) -> str:
        return f'that is one of {", ".join(map(str, self))}'

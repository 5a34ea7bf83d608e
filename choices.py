"""What callers choose, by name or by number, and the errors that tell them what they can choose.

Every dictionary from names to what is named is read through `choose`. The method knows arguments
and no fields: its errors are ArgumentErrors, and where a config is read `fields_of` makes of their
arguments the fields that a user has written.
"""

import contextlib
import dataclasses
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

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
    hint = similar(name, choices)
    raise ArgumentError(argument, f'unknown name {name!r}{hint}; known: {", ".join(choices)}')


def similar(name: str, known: Iterable[str]) -> str:
    """A question after the name that was meant, if one that is known looks like it."""
    close = difflib.get_close_matches(str(name), known, n=1)
    return f' (did you mean {close[0]!r}?)' if close else ''


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
        low = f'a number {"above" if self.without_low else "of at least"} {self.low:g}'
        if self.high == math.inf:
            return 'a number that is finite' if self.low == -math.inf else low
        return f'{low} and {"below" if self.without_high else "at most"} {self.high:,}'


class OneOf(tuple):
    """A few numbers or names."""

    def __str__(self) -> str:
        return f'one of {", ".join(map(str, self))}'


# What a field may be: numbers, or the names that a table has. None: whatever has the right type.
Allowed = Range | OneOf | Mapping[str, Any] | None


def check(value: Any, allowed: Allowed, argument: str) -> None:
    """Raises ArgumentError for a value that is not allowed; of a tuple, for such an element."""
    for one in value if isinstance(value, tuple | list) else (value,):
        if isinstance(one, str) and isinstance(allowed, Mapping | OneOf):
            choose(dict.fromkeys(allowed), one, argument)
        elif allowed is not None and one not in allowed:
            raise ArgumentError(argument, f'{one!r}; {allowed} needed')


# Options: fields of dataclasses that a user may set


def option(
    default: Value, meaning: str, allowed: Allowed = None, length: Range | None = None
) -> Value:
    """A dataclass field that configs have too: its default, what it means, and which names or
    numbers it may have (of a tuple, each of its elements, of which it has `length`). This is its
    one declaration.
    """
    metadata = {'meaning': meaning, 'allowed': allowed, 'length': length}
    return dataclasses.field(default=default, metadata=metadata)


def check_options(instance: Any) -> None:
    """Raises ArgumentError for the first option of a dataclass whose value is not allowed."""
    for field in dataclasses.fields(instance):
        check(getattr(instance, field.name), field.metadata.get('allowed'), field.name)

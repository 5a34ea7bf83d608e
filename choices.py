"""What users choose by name, and the errors that tell them what they can choose or do.

Every dictionary from names to functions is read through `choose`.
"""

import difflib
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar('Value')


class InputError(ValueError):
    """A flag, a config or a file cannot be used. One line: which, what it is, what is allowed."""


class RunError(RuntimeError):
    """A run cannot go on. One line: why, what is safe, and what to do."""


def choose(choices: Mapping[str, Value], name: str, field: str) -> Value:
    """`choices[name]`; raises InputError with the field, the closest name and all known names."""
    if name in choices:
        return choices[name]
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f' (did you mean {close[0]!r}?)' if close else ''
    raise InputError(f'{field}: unknown name {name!r}{hint}; known: {", ".join(choices)}')

"""Measured numbers as data: of what they are, by what, how well they are known, which way is
better."""

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from choices import InputError
from storage import workdirs

LOWER, HIGHER = 'lower', 'higher'


class Quantity(NamedTuple):
    """A number with a name.

    `better` is 'lower' or 'higher', if either is. `of` is what it is of where a measure has several
    (a sampler, a split of the data, a noise level), `by` the network that it is by.
    """

    name: str
    value: float
    standard_error: float | None = None
    better: str | None = None
    of: str | None = None
    by: str | None = None

    @property
    def label(self) -> str:
        """One word for people, and for config.eval.best_by."""
        return '_'.join(part for part in (self.of, self.name, self.by) if part)


def finite(found: Iterable[Quantity]) -> tuple[list[Quantity], list[str]]:
    """The quantities whose values are finite, and the labels of the others."""
    found = list(found)
    is_finite = [math.isfinite(quantity.value) for quantity in found]
    kept = [quantity for quantity, keep in zip(found, is_finite, strict=True) if keep]
    labels = [quantity.label for quantity, keep in zip(found, is_finite, strict=True) if not keep]
    return kept, labels


def mean(name: str, values: np.ndarray, **more: str | None) -> Quantity:
    """The mean of independent values, in float64, with its standard error, if there are two."""
    values, num = np.asarray(values, np.float64), len(values)
    error = float(values.std(ddof=1)) / math.sqrt(num) if num > 1 else None
    return Quantity(name, float(values.mean()), error, **more)


# Files


def write(path: pathlib.Path, step: int, found: Iterable[Quantity]) -> None:
    """Puts the quantities of a checkpoint in place of a JSON file. JSON has no numbers that are not
    finite: such values are not to be given, and such standard errors are left out.
    """
    rows = [
        {name: value for name, value in quantity._asdict().items() if value is not None}
        for quantity in map(_with_known_error, found)
    ]
    workdirs.write_json(path, {'step': step, 'quantities': rows})


def _with_known_error(quantity: Quantity) -> Quantity:
    error = quantity.standard_error
    is_known = error is not None and math.isfinite(error)
    return quantity if is_known else quantity._replace(standard_error=None)


def read(path: pathlib.Path) -> list[Quantity]:
    """What `write` wrote; of a file of before, which was a dictionary of numbers, their names alone
    are known.

    Raises InputError if the file is damaged.
    """
    content = workdirs.read_json(path)
    try:
        if 'quantities' in content:
            return [Quantity(**row) for row in content['quantities']]
        return [Quantity(name, value) for name, value in content.items() if name != 'step']
    except TypeError as error:
        raise InputError(f'{path} is damaged: {error}; --mode=eval writes it again') from error


# For people


def table(found: Iterable[Quantity]) -> str:
    """Labels, values and standard errors, one a line."""
    rows = [(quantity.label, text(quantity)) for quantity in found]
    width = max((len(label) for label, _ in rows), default=0)
    return '\n'.join(f'{label:<{width}}  {shown}' for label, shown in rows)


def text(quantity: Quantity, digits: int = 4) -> str:
    """The value to so many digits, and its standard error if that is known."""
    value, error = quantity.value, quantity.standard_error
    shown = f'{value:.{digits}g}' if isinstance(value, float) else f'{value:,}'
    return shown if error is None else f'{shown} ± {error:.2g}'


def best(found: Mapping[int, Sequence[Quantity]], label: str) -> str:
    """One line on the checkpoint that is best by the quantity with this label.

    Raises InputError if there is none, or if neither way is better.
    """
    values = {
        step: quantity
        for step, quantities in found.items()
        for quantity in quantities
        if quantity.label == label and quantity.better
    }
    if not values:
        known = sorted({q.label for found_there in found.values() for q in found_there if q.better})
        raise InputError(
            f'eval.best_by: nothing measured is named {label!r} and better one way; there are: '
            f'{", ".join(known)}'
        )
    better = next(iter(values.values())).better
    choose_best = max if better == HIGHER else min
    step = choose_best(values, key=lambda step: values[step].value)
    return f'Best by {label}: step {step}, {values[step].value:.4g}'

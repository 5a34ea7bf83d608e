"""Whether a config has the fields of configs/base.py, of their types and in their ranges.

What fields have to do with each other is found by what is made of them: experiment.py, samplers.py,
bits_per_dim.py, conditioning.py, quality.py. docs/bad_input.md has all of it.
"""

import difflib
from typing import Any

from ml_collections import ConfigDict

import models
from choices import InputError, choose
from configs import base, ranges
from storage import workdirs

# The fields of the networks.
SECTIONS = {
    'ncsnpp': base.ncsnpp,
    'ddpm': base.ddpm,
    **dict.fromkeys(['ncsnv2_64', 'ncsnv2_128', 'ncsnv2_256'], base.ncsnv2),
    'ncsn': base.ncsn,
    'wideresnet': base.wideresnet,
}


def check(config: ConfigDict) -> None:
    """Raises InputError for the first field that base has not, that is missing, of another type or
    out of range."""
    given = workdirs.flatten(config.to_dict())
    if not isinstance(given.get('model.name'), str):
        raise InputError(f'model.name: missing, or no string; known: {", ".join(models.MODELS)}')
    expected = reference(given['model.name'])
    known = workdirs.flatten(expected.to_dict())
    for field in given:
        if field not in known:
            raise InputError(f'{field}: there is no such field{_similar(field, known)}')
    for field, default in known.items():
        if field not in given:
            raise InputError(f'{field}: missing; configs/base.py has {default!r}')
        section, _, name = field.rpartition('.')
        of_type = (expected[section] if section else expected).get_type(name)
        _check_value(field, given[field], default, of_type)


def reference(model: str) -> ConfigDict:
    """All fields of an experiment with this network, with their defaults."""
    network = choose(SECTIONS, model, 'model.name')()
    config = base.classifier() if model in models.CLASSIFIERS else base.get_config()
    config.model = network
    return config


def _check_value(field: str, value: Any, default: Any, of_type: type) -> None:
    """None is a value of fields that are None by default."""
    if value is None and default is None:
        return
    if of_type is tuple:
        element = type(default[0]) if default else ranges.ELEMENTS[field]
        if not isinstance(value, tuple | list):
            raise InputError(
                f'{field}: {value!r} is no tuple of {element.__name__}, which is needed'
            )
        if len(value) not in (lengths := ranges.LENGTHS.get(field, ranges.ANY)):
            raise InputError(
                f'{field}: {value!r} has {len(value)} elements; a number {lengths} needed'
            )
        for one in value:
            _check_number(field, one, element)
    else:
        _check_number(field, value, of_type)


def _check_number(field: str, value: Any, of_type: type) -> None:
    """A number or a string, for that matter."""
    allowed = (float, int) if of_type is float else of_type
    # To Python, a bool is an int.
    if not isinstance(value, allowed) or (isinstance(value, bool) and of_type is not bool):
        raise InputError(f'{field}: {value!r} is no {of_type.__name__}, which is needed')
    allowed_range = ranges.RANGES.get(field, ranges.ANY)
    if of_type in (int, float) and value not in allowed_range:
        raise InputError(f'{field}: {value!r}; a number {allowed_range} needed')


def _similar(field: str, known: dict) -> str:
    close = difflib.get_close_matches(field, known, n=1)
    return f' (did you mean {close[0]!r}?)' if close else ''

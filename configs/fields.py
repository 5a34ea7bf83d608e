"""Fields of configs: what one is, and what follows from a nested dictionary of them.

A field is declared once (base.py). Default values, the checks of a config, what a running workdir
may change, and docs/fields.md are made from that.
"""

import dataclasses
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from choices import Allowed, Range
from storage import workdirs

Type = type  # Within Field, `type` is a field.
# Nested dictionaries of fields, and of plain values.
Fields = dict[str, Any]
Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    default   None: the code decides, or there is none
    meaning   a phrase for docs/fields.md
    allowed   numbers or names; of a tuple, of each of its elements. None: any text, any finite
              number
    type      of the value, or of the elements of a tuple: where the default does not show it
    length    how many elements a tuple may have
    free      a later command on a workdir may change it; otherwise it is fixed for a run
    of        for which choices the field exists: names or values of other fields, one of which has
              to be chosen, {'sampling.method': ('sde',)}; {}: for all
    """

    default: Any
    meaning: str
    allowed: Allowed = None
    type: Type | None = None
    length: Range | None = None
    free: bool = False
    of: Mapping[str, Collection] = dataclasses.field(default_factory=dict)

    @property
    def is_tuple(self) -> bool:
        """Whether the value is a tuple."""
        return isinstance(self.default, tuple)

    @property
    def of_type(self) -> Type:
        """The type of the value, or of the elements of a tuple."""
        if self.type is not None:
            return self.type
        return type(self.default[0] if self.is_tuple else self.default)


# Making fields


def changeable(section: Fields) -> Fields:
    """A section of which a later command on a workdir may change every field."""
    return {name: dataclasses.replace(field, free=True) for name, field in section.items()}


def of_choices(of: Mapping[str, Collection], section: Fields) -> Fields:
    """A section whose fields exist for these choices alone."""
    return {name: dataclasses.replace(field, of=of) for name, field in section.items()}


def of_options(options: Iterable[dataclasses.Field]) -> Fields:
    """The fields of a dataclass that are declared by choices.option."""
    return {
        option.name: Field(
            option.default,
            **option.metadata,
            # (float,) of tuple[float, ...]
            type=typing.get_args(option.type)[0] if option.default == () else None,
        )
        for option in options
        if option.metadata
    }


def of_any(choices: Mapping[str, type], decides: str) -> Fields:
    """The options of several dataclasses, each for those that have it; `decides` is the field that
    names one of them. All are None by default, which is the dataclass's own default.
    """
    found = {}
    for name, chosen in choices.items():
        for option, field in of_options(dataclasses.fields(chosen)).items():
            first = found.setdefault(
                option,
                dataclasses.replace(field, default=None, type=field.of_type, of={decides: ()}),
            )
            found[option] = dataclasses.replace(first, of={decides: (*first.of[decides], name)})
    return found


# What follows from fields


def networks(fields: Fields) -> Collection[str]:
    """The names of the networks that an experiment with these fields has; none without a choice."""
    name = flat(fields).get('model.name')
    return () if name is None else tuple(name.allowed)


def flat(fields: Fields) -> dict[str, Field]:
    """All fields by their dotted names."""
    return workdirs.flatten(fields)


def config(fields: Fields) -> ConfigDict:
    """A config of all default values; those that are None take values of their type."""
    return ConfigDict(_defaults(fields))


def _defaults(fields: Fields) -> Values:
    return {
        name: _defaults(field)
        if isinstance(field, dict)
        else placeholder(field.of_type)
        if field.default is None
        else field.default
        for name, field in fields.items()
    }


def completed(values: Values, fields: Fields) -> Values:
    """Values as JSON has them, with tuples for lists, and with defaults for fields that they lack.

    What is no field stays as it is.
    """
    found = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    for name, field in fields.items():
        if isinstance(field, dict):
            found[name] = completed(values.get(name, {}), field)
        else:
            found.setdefault(name, field.default)
    return found


def is_fixed(fields: Fields) -> Callable[[str], bool]:
    """Whether the field of a dotted name is fixed for a run.

    A name that is no field, as another network or an older version has it, is fixed where any field
    of its section is.
    """
    declared = flat(fields)
    sections = {name.split('.')[0] for name, field in declared.items() if not field.free}

    def of_name(name: str) -> bool:
        return not declared[name].free if name in declared else name.split('.')[0] in sections

    return of_name


def exists(name: str, declared: Mapping[str, Field], values: Mapping[str, Any]) -> bool:
    """Whether a field exists for what is chosen; `declared` and `values` are by dotted names.

    A choice counts only if the field that makes it exists itself.
    """
    of = declared[name].of
    return not of or any(
        decides in declared
        and exists(decides, declared, values)
        and any(chosen in of[decides] for chosen in elements(values[decides]))
        for decides in of
    )


def elements(value: Any) -> tuple:
    """The elements of a tuple or a list; a value alone is the only one."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)

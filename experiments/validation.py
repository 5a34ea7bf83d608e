"""Whether a config has the fields that configs/base.py declares, with values that they may have.

A field exists for choices: a solver's field where a sampler with that solver is chosen. What is
refused where the choice is another one:

* what the command line says, because nothing would come of it;
* what a config file says of a field that is fixed for a run, because a run has one choice. Files
  may say what samplers and tasks need that are not chosen yet: later commands choose among them.
  And where the command line has made the choice, the file spoke of another one. So it may have
  been when a run began, whose config a workdir has recorded.

What fields have to do with each other else is found by what is made of them: experiment.py,
samplers.py, bits_per_dim.py, conditioning.py, quality.py. docs/bad_input.md has all of it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

import choices
from choices import ArgumentError, InputError, Range, choose, similar
from configs import base, fields
from configs.fields import Field
from storage import workdirs

FINITE = Range(float('-inf'))


def check(config: ConfigDict, overridden: Collection[str] = (), is_recorded: bool = False) -> None:
    """Raises InputError for the first field that is not declared, that is missing, whose value has
    another type or is not allowed, or that does not exist for what is chosen.

    `overridden` are the dotted names of the fields that the command line sets. `is_recorded` says
    that a workdir has the config.
    """
    given = workdirs.flatten(config.to_dict())
    declared = declarations(given)
    for field in given:
        if field not in declared:
            raise InputError(f'{field}: there is no such field{_elsewhere(field, given, declared)}')
    for field in declared:
        if field not in given:
            raise InputError(f'{field}: missing; configs/base.py has {declared[field].default!r}')
        check_value(field, given[field], declared[field])
    for field in declared:
        if not fields.exists(field, declared, given) and _is_meant(
            field, given[field], declared[field], overridden, is_recorded
        ):
            raise InputError(f'{field}: {_of_others(field, declared, given)}')


def read_none(config: ConfigDict, overridden: Collection[str]) -> None:
    """Makes None of `none`, in any case, that the command line says of text which may be None."""
    given = workdirs.flatten(config.to_dict())
    declared = declarations(given)
    for field in set(overridden) & declared.keys():
        is_none = isinstance(given[field], str) and given[field].lower() == 'none'
        if is_none and declared[field].default is None:
            config.update_from_flattened_dict({field: None})


def declarations(given: Mapping[str, Any]) -> dict[str, Field]:
    """All fields of the experiment and the network that are named, by their dotted names."""
    kind, network = given.get('experiment'), given.get('model.name')
    if not isinstance(kind, str):
        known = ', '.join(base.EXPERIMENTS)
        raise InputError(f'experiment: missing, or no string; known: {known}')
    of_network = choose(base.EXPERIMENTS, kind, 'experiment')
    # What is no name of a network is refused with the other values.
    return fields.flat(of_network(network if isinstance(network, str) else None))


# Values


def check_value(field: str, value: Any, declared: Field) -> None:
    """Raises InputError for a value of another type, or one that is not allowed.

    None is a value of fields that are None by default.
    """
    if value is None and declared.default is None:
        return
    if declared.is_tuple:
        if not isinstance(value, tuple | list):
            raise InputError(
                f'{field}: {value!r} is no tuple of {declared.of_type.__name__}, which is needed'
            )
        if declared.length is not None and len(value) not in declared.length:
            raise InputError(
                f'{field}: {value!r} has {len(value)} elements; {_count(declared.length)} needed, '
                f'{declared.meaning}'
            )
        for one in value:
            _check_one(field, one, declared)
    else:
        _check_one(field, value, declared)


def _count(length: Range) -> str:
    return f'{length.low:g}' if length.low == length.high else str(length)


def _check_one(field: str, value: Any, declared: Field) -> None:
    """A value that is no tuple, or an element of one."""
    of_type = declared.of_type
    types = (float, int) if of_type is float else of_type
    # To Python, a bool is an int.
    if not isinstance(value, types) or (isinstance(value, bool) and of_type is not bool):
        raise InputError(f'{field}: {value!r} is no {of_type.__name__}, which is needed')
    allowed = declared.allowed
    if allowed is None and of_type in (int, float):
        allowed = FINITE
    try:
        choices.check(value, allowed, field)
    except ArgumentError as error:
        raise InputError(str(error)) from error


# Fields that do not exist


def _elsewhere(field: str, given: Mapping[str, Any], declared: Mapping[str, Field]) -> str:
    """What follows the refusal of a field: where there is one of this name, or a similar one."""
    kinds = [
        kind for kind in base.EXPERIMENTS if field in fields.flat(base.EXPERIMENTS[kind](None))
    ]
    others = [repr(kind) for kind in kinds if kind != given['experiment']]
    if others and len(others) == len(kinds):
        return f' of experiment {given["experiment"]!r}; it belongs to {", ".join(others)}'
    if field.startswith('model.') and 'model.name' in given:
        return (
            f' of network {given["model.name"]!r}{similar(field, declared)}; a config file takes '
            'the section of another network whole, as config.model = base.ddpm()'
        )
    return similar(field, declared)


def _is_meant(
    field: str, value: Any, declared: Field, overridden: Collection[str], is_recorded: bool
) -> bool:
    """Whether a field that does not exist for what is chosen is one that somebody counts on; see
    the module's docstring."""
    if field in overridden or is_recorded:
        return field in overridden
    is_default = (tuple(value) if isinstance(value, list) else value) == declared.default
    return not (is_default or declared.free or set(declared.of) & set(overridden))


def _of_others(field: str, declared: Mapping[str, Field], given: Mapping[str, Any]) -> str:
    """What is chosen has no such field; which it has, and whose it is."""
    of = {decides: names for decides, names in declared[field].of.items() if decides in declared}
    if len(of) == 1:
        [decides] = of
        # The field that makes the choice may itself be of a choice that is not made.
        if not fields.exists(decides, declared, given):
            return f'it belongs to {decides}, and {_of_others(decides, declared, given)}'
    chosen = ' and '.join(_told(decides, given[decides]) for decides in of)
    have = [
        name.rpartition('.')[2]
        for name, other in declared.items()
        if set(other.of) == set(of) and fields.exists(name, declared, given)
    ]
    owners = ', or to '.join(
        f'{decides} = {" | ".join(map(repr, names))}' for decides, names in of.items()
    )
    verb = 'has' if len(of) == 1 else 'have'
    has = f'; it has: {", ".join(have)}' if have and len(of) == 1 else ''
    return f'{chosen} {verb} no such field{has}; it belongs to {owners}'


def _told(decides: str, chosen: Any) -> str:
    """A name says enough; other choices are told with the field that makes them."""
    return repr(chosen) if isinstance(chosen, str) else f'{decides} = {chosen!r}'

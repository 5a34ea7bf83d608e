"""Writes docs/fields.md from the declarations of the fields: python -m configs.document"""

import dataclasses
import inspect
import math
import pathlib
from collections.abc import Mapping

import sde_lib
from choices import Range
from configs import base, fields
from configs.fields import Field, Fields

PATH = pathlib.Path(__file__).parents[1] / 'docs' / 'fields.md'

OPENING = """# Fields

`python -m configs.document` writes this file from the declarations in
[configs/base.py](../configs/base.py), and a test holds it to date.

A config file sets fields, and so does the command line: `--config.optim.lr=1e-3` sets the field
`lr` of the section `optim`. How to read the tables:

* **Default:** the value in `configs/base.py`. None means that the code decides, or that there is no
  such thing; the meaning says which.
* **Allowed:** numbers or names; of a tuple, this is what each of its elements may be. Numbers are
  finite.
* **Exists for:** the choices that a field belongs to. Fields without any are always there. If
  another choice is made, the field must not be set on the command line. A config file must not set
  it either if the field is fixed for a run, because a run has one choice. Other fields may be set
  before they are needed: a later command can make that choice.
* **May change:** whether a later command on the same workdir may have another value. All other
  fields stay what they were when the run began.

## What may change, and why the rest may not

A workdir is one run. What may change is how long it trains, what is logged and kept, on which
devices, where its data are, and all that later commands draw and measure. What may not change is
what its checkpoints are made by, because then nothing that is in the workdir would be what its
config says:

* `model` and `experiment`: a checkpoint has the arrays of one network.
* `sde`, `training.objective`, `training.weighting`, times and labels: they say what the network has
  learned. A sampler or a likelihood with another SDE would take its output for something else.
* `data`, but for its place: the size, range and split of images. Where the images are may change,
  as `data.source` and `data.data_dir` say, and so may the machine. Training compares the images
  themselves, by their number and their fingerprint, and refuses others in another place
  ([data.md](data.md)).
* `optim`, `seed`, `training.batch_size` and `training.steps_per_dispatch`: a run that was stopped
  goes on to the same bits as one that was not, whatever happened between.

Without `--config` a command takes all of them from the workdir. For other values there is a new
workdir, which may begin with the parameters of the old one: `training.init_from`.
"""

HEADER = """| field | default | allowed | exists for | may change | meaning |
| --- | --- | --- | --- | --- | --- |
"""

# Of these sections fields depend on the network, and on the SDE.
BY_CLASS = ('model', 'sde')


def text() -> str:
    """The document."""
    return '\n'.join([OPENING, _sections(), _sdes(), _networks()])


def _sections() -> str:
    kinds = {kind: create(None) for kind, create in base.EXPERIMENTS.items()}
    names = dict.fromkeys(name for tree in kinds.values() for name in fields.flat(tree))
    rows = {}
    for name in names:
        section = name.rpartition('.')[0]
        if section in BY_CLASS and name != 'sde.name':
            continue
        declared = {kind: fields.flat(tree).get(name) for kind, tree in kinds.items()}
        having = {kind: field for kind, field in declared.items() if field is not None}
        rows.setdefault(section, []).append(_row(name, having, len(having) == len(kinds)))
    return '\n'.join(
        f'## {section or "Without a section"}\n\n{HEADER}{"".join(rows[section])}'
        for section in rows
    )


def _sdes() -> str:
    """A table for each SDE, with its own defaults."""
    parts = [
        '## SDEs\n\nThe section `sde`, by `sde.name`. In a config these fields are None, which '
        'stands\nfor the defaults here. They may not change.\n'
    ]
    for name, chosen in {**sde_lib.SDES, **sde_lib.WITHOUT_KERNEL}.items():
        says = ' '.join(inspect.getdoc(chosen).split('\n\n')[0].split())
        own = fields.of_options(dataclasses.fields(chosen))
        table = _short_table('sde', own) if own else 'It has no fields.\n'
        parts.append(f'### {name}\n\n{_escaped(says)}\n\n{table}')
    return '\n'.join(parts)


def _networks() -> str:
    """A table for each network; those with the same fields share one."""
    parts = [
        '## Networks\n\nThe section `model`, by `model.name`. Of these fields `precision` alone '
        'may change.\n'
    ]
    shared: list[tuple[list[str], Fields]] = []
    for create in base.EXPERIMENTS.values():
        for name in fields.networks(create(None)):
            section = {k: field for k, field in create(name)['model'].items() if k != 'name'}
            alike = [names for names, other in shared if other == section]
            if alike:
                alike[0].append(name)
            else:
                shared.append(([name], section))
    parts += [f'### {", ".join(names)}\n\n{_short_table("model", own)}' for names, own in shared]
    return '\n'.join(parts)


def _short_table(section: str, own: Mapping[str, Field]) -> str:
    rows = [
        f'| `{section}.{name}` | {_value(field.default)} | {_allowed(field)} | '
        f'{_escaped(field.meaning)} |\n'
        for name, field in own.items()
    ]
    return '| field | default | allowed | meaning |\n| --- | --- | --- | --- |\n' + ''.join(rows)


def _row(name: str, by_kind: Mapping[str, Field], for_all: bool) -> str:
    """The row of a field, which these kinds of experiments have."""
    field = next(iter(by_kind.values()))
    defaults = dict.fromkeys(_value(declared.default) for declared in by_kind.values())
    kinds = '' if for_all else ', '.join(f'`{kind}`' for kind in by_kind)
    exists_for = '; '.join(filter(None, (kinds, _choices(field))))
    return (
        f'| `{name}` | {" or ".join(defaults)} | {_allowed(field)} | {exists_for} | '
        f'{"yes" if field.free else ""} | {_escaped(field.meaning)} |\n'
    )


def _value(value: object) -> str:
    return f'`{value:g}`' if isinstance(value, float) else f'`{value}`'


def _allowed(field: Field) -> str:
    allowed, of_type = field.allowed, field.of_type
    if allowed is not None and not isinstance(allowed, Range):
        words = ', '.join(f'`{name}`' for name in allowed)
    elif of_type in (str, bool):
        words = 'any text' if of_type is str else '`True`, `False`'
    else:
        words = ', '.join(['whole number' if of_type is int else 'number', *_bounds(allowed)])
    if field.length is not None:
        low, high = field.length.low, field.length.high
        words = f'{low if low == high else f"{low} to {high}"} elements: {words}'
    return words


def _bounds(allowed: Range | None) -> list[str]:
    if allowed is None:
        return []
    bounds = [f'{">" if allowed.without_low else ">="} {allowed.low:g}']
    if allowed.high < math.inf:
        bounds.append(f'{"<" if allowed.without_high else "<="} {allowed.high:,}')
    return bounds


def _choices(field: Field) -> str:
    """The choices that a field belongs to; fields with the same names are told together."""
    deciding = {}
    for decides, names in field.of.items():
        deciding.setdefault(tuple(names), []).append(f'`{decides}`')
    return ', or '.join(
        f'{" or ".join(deciders)}: {", ".join(f"`{name}`" for name in names)}'
        for names, deciders in deciding.items()
    )


def _escaped(words: str) -> str:
    return words.replace('|', r'\|')


if __name__ == '__main__':
    PATH.write_text(text())

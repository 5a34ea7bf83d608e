"""The config that a workdir was trained with, and what a later command has changed of it.

Configs are plain nested dictionaries here, as in `config.json`.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from choices import InputError
from storage import files

CLASSES = 'classes'  # of the data of a run, in data.json


def claim(workdir: pathlib.Path, config: dict, is_fixed: Callable[[str], bool]) -> None:
    """Writes the config to a workdir; raises InputError if another run has it.

    `is_fixed` says of a field, by its dotted name, whether a run keeps it.
    """
    check_free(workdir, config, is_fixed)
    record(workdir, config)


def check_free(workdir: pathlib.Path, config: dict, is_fixed: Callable[[str], bool]) -> None:
    """Raises InputError if a workdir has a config, and it is that of another run."""
    if (workdir / 'config.json').exists():
        check_same_run(workdir, config, is_fixed)


def record(workdir: pathlib.Path, config: dict) -> None:
    """Writes the config to a workdir, whatever is there."""
    write_json(workdir / 'config.json', config)


def check_same_run(workdir: pathlib.Path, config: dict, is_fixed: Callable[[str], bool]) -> None:
    """Raises InputError, which names them all, if a workdir was not trained with these values of
    fixed fields.

    A field that the workdir's config lacks is newer than the run.
    """
    trained_with = read_config(workdir)
    if trained_with is None:
        raise InputError(f'--workdir: {workdir} has no config.json; train there first')
    before, now = flatten(trained_with), flatten(json.loads(json.dumps(config)))
    differing = [
        f'{field}: {now.get(field)!r}, but trained with {before[field]!r}'
        for field in sorted(before)
        if is_fixed(field) and before[field] != now.get(field)
    ]
    if differing:
        raise InputError(
            f'{"; ".join(differing)}; {workdir} keeps what it was trained with, which is read from '
            'there without --config; use that, or another --workdir'
        )


def read_config(workdir: pathlib.Path) -> dict | None:
    """The config that a workdir was trained with; None if there is none.

    Raises InputError if the file is cut short, or is something else.
    """
    path = workdir / 'config.json'
    try:
        return read_json(path) if path.exists() else None
    except InputError as error:
        raise InputError(
            f'{error}; put a copy of it back, or delete it, and --mode=train with the fields of '
            'the run writes it again'
        ) from error


# The data of a run


def keep_data(
    workdir: pathlib.Path,
    is_begun: bool,
    has_moved: bool,
    found: dict[str, dict],
    classes: dict | None = None,
) -> list[str]:
    """Writes what identifies the data of a run, by split, to `data.json` when it begins; later, a
    line for each split that is another one now. The classes of the data are kept with them.

    Of a run that is begun and lacks the file, as it is of an older version or was imported, it is
    written now, which a line says. Raises InputError if the file is damaged, or if data that are
    elsewhere now, which `has_moved` says, are others.
    """
    path = workdir / 'data.json'
    of_classes = {} if classes is None else {CLASSES: classes}
    if is_begun and path.exists():
        compared = (other_data(workdir, split, of_split) for split, of_split in found.items())
        differing = [line for line in compared if line]
        if differing and has_moved:
            raise InputError(
                f'{"; ".join(differing)}; data may move, but a run keeps them; to train on others, '
                'begin a new --workdir, with the parameters of this one by '
                f'--config.training.init_from={workdir}'
            )
        began_with = read_json(path)
        if of_classes and CLASSES not in began_with:  # Of a run of an older version.
            write_json(path, began_with | of_classes)
        return differing
    write_json(path, found | of_classes)
    if not is_begun:
        return []
    return [
        f'{workdir}: it has no data.json, so whether the data are those that training began with '
        'is not known; from now on they are compared with those of today, of which a folder holds '
        'out other images than older versions did'
    ]


def other_data(workdir: pathlib.Path, split: str, now: dict) -> str | None:
    """What is said of a split that is not the one that training began with; None if it is, or if
    that is not known. Raises InputError if `data.json` is damaged.

    Only what both know of a split is compared: another version may know more.
    """
    path = workdir / 'data.json'
    before = read_json(path).get(split) if path.exists() else None
    if before is None or all(before[name] == now[name] for name in before.keys() & now.keys()):
        return None
    return (
        f'{workdir}: the {split} split has {now["examples"]:,} examples, and had '
        f'{before["examples"]:,} when training began; not all of them are the same'
    )


def read_classes(workdir: pathlib.Path) -> dict | None:
    """The classes that `keep_data` has kept; None if there are none. InputError if the file is
    damaged.
    """
    path = workdir / 'data.json'
    found = read_json(path).get(CLASSES) if path.exists() else None
    if found is not None and not isinstance(found, dict):
        raise InputError(f'{path} is damaged: {CLASSES!r} is {found!r:.40}, and no JSON object')
    return found


def flatten(tree: dict, prefix: str = '') -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    flat = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        flat |= flatten(value, f'{prefix}{name}.') if nested else {prefix + name: value}
    return flat


def read_json(path: pathlib.Path) -> dict:
    """The dictionary in a file; raises InputError if there is none."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f'{path} cannot be read: {files.reason(error)}') from error
    except ValueError as error:  # No JSON, or no text.
        raise InputError(f'{path} is cut short or damaged: {error}') from error
    if not isinstance(content, dict):
        raise InputError(f'{path} is damaged: it holds {content!r:.40}, and no JSON object')
    return content


def write_json(path: pathlib.Path, content: dict) -> None:
    """Puts a dictionary in place of a file."""
    with files.replacing(path) as draft:
        draft.write_text(json.dumps(content, indent=2, default=float) + '\n')

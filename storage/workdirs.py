"""The config that a workdir was trained with: which of its fields a later command may change.

Configs are plain nested dictionaries here, as in `config.json`.
"""

import json
import pathlib
from typing import Any

from choices import InputError
from storage import files

# What a workdir's checkpoints depend on, and the fields of it that may change all the same.
FIXED_SECTIONS = ('seed', 'data', 'sde', 'model', 'training', 'optim')
FREE_FIELDS = (
    'data.data_dir',
    'training.num_steps',
    'training.log_every',
    'training.eval_every',
    'training.sample_every',
    'training.num_samples',
    'training.checkpoint_every',
    'training.keep_checkpoints',
    'training.keep_every',
    'training.keep_best',
    'training.max_skipped',
)


def claim(workdir: pathlib.Path, config: dict) -> None:
    """Writes the config to a workdir; raises InputError if another run has it."""
    if (workdir / 'config.json').exists():
        check_same_run(workdir, config)
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / 'config.json', config)


def check_same_run(workdir: pathlib.Path, config: dict) -> None:
    """Raises InputError for the first fixed field that a workdir was not trained with.

    A field that the workdir's config lacks is newer than the run.
    """
    path = workdir / 'config.json'
    if not path.exists():
        raise InputError(f'--workdir: {workdir} has no config.json; train there first')
    before, now = flatten(json.loads(path.read_text())), flatten(json.loads(json.dumps(config)))
    for field in sorted(before):
        fixed = field.split('.')[0] in FIXED_SECTIONS and field not in FREE_FIELDS
        if fixed and before.get(field) != now.get(field):
            raise InputError(
                f'{field}: {now.get(field)!r}, but {workdir} was trained with '
                f'{before.get(field)!r}; use that, or another --workdir'
            )


def flatten(tree: dict, prefix: str = '') -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    flat = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        flat |= flatten(value, f'{prefix}{name}.') if nested else {prefix + name: value}
    return flat


def write_json(path: pathlib.Path, content: dict) -> None:
    """Puts a dictionary in place of a file."""
    with files.replacing(path) as draft:
        draft.write_text(json.dumps(content, indent=2, default=float) + '\n')

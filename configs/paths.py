"""Which config file was meant by a path that names none."""

import pathlib

from choices import similar

ROOT = pathlib.Path(__file__).parents[1]


def hint(path: str) -> str:
    """What follows the refusal of a path: where a config of this name is, or of one like it."""
    if pathlib.Path(path).is_dir():
        return '; it is a directory, and a file needed'
    for found in (f'{path}.py', str(ROOT / path), str(ROOT / f'{path}.py')):
        if found.endswith('.py') and pathlib.Path(found).is_file():
            return f'; there is {found}'
    return similar(path, experiments())


def experiments() -> list[str]:
    """The config files of this project, from its root."""
    found = sorted((ROOT / 'configs').glob('*/**/*.py'))
    return [str(p.relative_to(ROOT)) for p in found if p.stem not in ('__init__', 'base')]

"""Images by seeds, each in a file of its own, as programs take them that compare folders of images.

The image of seed s is image s of `--mode=sample`: the same whatever others are drawn with it.
"""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from choices import InputError, RunError
from devices import processes
from evaluation import left_out
from evaluation.batchwise import Checkpoint, Draws
from experiments import programs
from experiments.experiment import Drawing
from reports import pictures
from storage import fingerprints, resumable
from training import Params

# Larger numbers of images are none.
LARGEST = 2**31 - 1
MOST = 10**6  # at a time
SETTINGS = '.settings.npz'


def parse(text: str) -> list[int]:
    """The seeds of a text such as 0-9,20,30-39, each once, in order.

    Raises InputError for another text, and for more than MOST seeds.
    """
    ranges = [re.fullmatch(r'(\d+)(?:-(\d+))?', part.strip()) for part in text.split(',')]
    if not all(ranges):
        raise InputError(f'--seeds: {text!r}; numbers and ranges needed, as 0-9,20,30-39')
    ends = [(int(found[1]), int(found[2] or found[1])) for found in ranges]
    for first, last in ends:
        if last < first or last > LARGEST:
            raise InputError(
                f'--seeds: {first}-{last}; the first and the last of a range needed, of at most '
                f'{LARGEST:,}'
            )
    num = sum(last - first + 1 for first, last in ends)
    if num > MOST:
        raise InputError(f'--seeds: {num:,} images; at most {MOST:,} are drawn at a time')
    return sorted({seed for first, last in ends for seed in range(first, last + 1)})


def directory_of(stem: pathlib.Path, settings: str) -> pathlib.Path:
    """Where images by these settings go: `stem`, or a longer name if others are there."""
    found = resumable.load(stem / SETTINGS)
    is_free = not stem.exists() or (found and str(found.get('settings')) == settings)
    return stem if is_free else stem.with_name(f'{stem.name}_{settings}')


def draw(
    drawing: Drawing, mesh: Mesh, checkpoint: Checkpoint, stem: pathlib.Path, seeds: list[int]
) -> None:
    """Draws the images of these seeds that are not there, to a file for each. Raises RunError for
    those that are left out, after the others are written.
    """
    draws = programs.draws(drawing, mesh, len(seeds))
    settings = fingerprints.fingerprint([checkpoint.checksum, drawing.fingerprint, draws.seed])
    directory = processes.from_first(lambda: directory_of(stem, settings))
    written = write(draws, checkpoint.params, seeds, directory, settings)
    print(f'{written.drawn:,} images drawn, {written.before:,} were there; {directory}')
    if written.problem:
        raise RunError(written.problem)


class Written(NamedTuple):
    """How many images were drawn and how many were there before; what there is to say of others
    that are left out.
    """

    drawn: int
    before: int
    problem: str | None


def write(
    draws: Draws, params: Params, seeds: Sequence[int], directory: pathlib.Path, settings: str
) -> Written:
    """Draws the images of these seeds that are not in `directory`, to NUMBER.png of six digits."""
    missing = processes.from_first(lambda: [s for s in seeds if not path_of(directory, s).exists()])
    if not missing:
        return Written(0, len(seeds), None)
    of_settings = {'settings': np.array(settings)}
    processes.on_first(resumable.save, directory / SETTINGS, of_settings)
    endings = []
    with draws.bar(len(missing)) as bar:
        for start in range(0, len(missing), draws.size):
            wanted = np.array(missing[start : start + draws.size])
            # The last batch is filled up with some of its own.
            found = draws.of_indices(params, np.resize(wanted, draws.size))
            ending = {name: found[name][: len(wanted)] for name in left_out.ARRAYS}
            for i in np.flatnonzero(left_out.kept(ending)):
                path = path_of(directory, wanted[i])
                processes.on_first(pictures.save_png, path, found['pixels'][i], 1)
            endings.append(ending)
            bar.update(len(wanted))
    of_all = {name: np.concatenate([each[name] for each in endings]) for name in left_out.ARRAYS}
    return Written(
        int(left_out.kept(of_all).sum()),
        len(seeds) - len(missing),
        left_out.line(draws.name, of_all, draws.remedy, params),
    )


def path_of(directory: pathlib.Path, seed: int) -> pathlib.Path:
    """Where the image of a seed is."""
    return directory / f'{seed:06d}.png'

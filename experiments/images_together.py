"""Images of one command in one picture and one file of arrays."""

import pathlib

import numpy as np
from jax.sharding import Mesh

from choices import RunError
from devices import processes
from evaluation.batchwise import Checkpoint
from experiments import programs
from experiments.experiment import Drawing, Shown
from reports import pictures, report
from storage import files, fingerprints, resumable


def draw(
    drawing: Drawing, mesh: Mesh, checkpoint: Checkpoint, workdir: pathlib.Path, stem: pathlib.Path
) -> None:
    """Draws as many images as the drawing says, to `stem`.png and .npz, or a longer name if others
    are there. Raises RunError for those that are left out, after the others are written.
    """
    draws = programs.draws(drawing, mesh)
    given = draws.size, drawing.fingerprint, draws.seed
    drawn = draws(checkpoint.params, checkpoint.batches(drawing.name, mesh, *given))
    if not len(drawn.index):
        raise RunError(drawn.problem)
    shown = drawing.show(drawn.pixels, drawn.index)
    settings = fingerprints.fingerprint([checkpoint.checksum, draws.num, *given])
    stem = processes.from_first(lambda: free_stem(stem, settings))
    arrays = {'samples': drawn.pixels, 'nfe': drawn.nfe, 'settings': np.array(settings)}
    arrays |= shown.arrays
    if drawn.problem:
        arrays['index'] = drawn.index
    most, num = pictures.most(drawn.pixels.shape), len(drawn.pixels)
    if num > most:
        print(f'{stem}.npz: {num:,} images, of which the picture has the first {most:,} at most')
    with processes.saying('writing the images and the report'):
        processes.on_first(write_shown, workdir, stem, shown, arrays)
    nfe = drawn.nfe.mean()
    print(f'{num}: {drawn.seconds:.1f} s, {nfe:.0f} evaluations each; {stem}.png')
    if shown.note:
        print(shown.note)
    if drawn.problem:
        raise RunError(drawn.problem)


def free_stem(stem: pathlib.Path, settings: str) -> pathlib.Path:
    """Where samples by these settings go: `stem`, or a longer one if others are there."""
    path = stem.with_suffix('.npz')
    if not path.exists():
        return stem
    found = resumable.load(path) or {'settings': settings}
    # Of samples of an older version it is not known what they are by.
    is_own = str(found.get('settings')) == settings
    return stem if is_own else stem.with_name(f'{stem.name}_{settings}')


def write_shown(
    workdir: pathlib.Path, stem: pathlib.Path, shown: Shown, arrays: dict[str, np.ndarray]
) -> None:
    """A picture and arrays under one name, and the report that shows them."""
    pictures.save_png(stem.with_suffix('.png'), shown.sheet)
    with files.replacing(stem.with_suffix('.npz')) as draft:
        np.savez_compressed(draft, **arrays)
    report.write(workdir)

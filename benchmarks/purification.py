"""The tables of docs/purification.md: attacks on a classifier of digits with purifiers before it.

    python -m benchmarks.purification WORKDIR [--minutes 7] > tables.md

Parts of 50 images are kept in WORKDIR, the first of all trials before the second, so that it can
be stopped and goes on by the same command; `--minutes` begins no part after that time. By default
the networks are those of `make demo`, runs/demo and runs/classifier, and that of
configs/ve/mnist_classifier_clean.py, runs/clean; images are those of their test split, which none
of them was trained on. Three quarters of an hour on two cores.
"""

import argparse
import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import keys
import sampling
from applications.purification.attacks import APGD, PGD, Attack
from applications.purification.purifiers import (
    ADP,
    DenoiseOnce,
    DiffPure,
    Noise,
    Nothing,
    PublishedADP,
    Purifier,
    ascent,
    time_of,
)
from applications.purification.trials import Trial, Trials
from benchmarks import machine
from datasets.loading import Images
from devices import program_cache, sharding
from evaluation import quantities
from evaluation.batchwise import Checkpoint
from experiments import reading, trained
from experiments.classifier import Classifier
from experiments.score_model import ScoreModel
from shapes import PerImage, State
from storage import fingerprints, resumable
from storage.resumable import Arrays
from training import Params

PART = 50  # images that are attacked together, and then judged
RUNS = 10
LEVEL = 0.5  # 0.25 for pixels from 0 to 1
RADII = 0.1, 0.3, 0.2  # for pixels from 0 to 1
BLIND = PGD(steps=40)
ADAPTIVE = PGD(steps=20, draws=4)
AUTO = APGD(steps=40, restarts=3)
# Test images of each row, without an attack and with one that does not know of the purifier.
NUM = {
    **dict.fromkeys(('none', 'noise', 'smoothing', 'one_step', 'adp'), 500),
    **dict.fromkeys(('sde', 'ode', 'adp5'), 200),
    'published': 200,
}


class Row(NamedTuple):
    """A defence: its title, its classifier, 'clean' or 'noisy', its purifier."""

    title: str
    classifier: str
    purifier: Purifier


def _few(predictor: str) -> DiffPure:
    sampler = sampling.create('pc', predictor=predictor, steps=3, spacing='karras')
    return DiffPure(level=LEVEL, sampler=sampler)


ROWS = {
    'none': Row('none', 'clean', Nothing()),
    'noise': Row('noise alone', 'clean', Noise(level=LEVEL)),
    'smoothing': Row('smoothing: noise, classifier trained with it', 'noisy', Noise(level=LEVEL)),
    'one_step': Row('one step: E[x_0 given y]', 'clean', DenoiseOnce(level=LEVEL)),
    'published': Row('ADP, published rule', 'clean', PublishedADP(level=LEVEL)),
    'adp': Row('ADP, annealed: rate 0.6, 3 steps', 'clean', ADP(level=LEVEL)),
    'adp5': Row('ADP, annealed: rate 0.5, 5 steps', 'clean', ADP(level=LEVEL, rate=0.5, steps=5)),
    'sde': Row('DiffPure, SDE, 3 steps', 'clean', _few('ancestral')),
    'ode': Row('DiffPure, ODE, 3 steps', 'clean', _few('ddim')),
}


class Cell(NamedTuple):
    """One number: a row of ROWS, what the attacker knows (None: there is no attack), the attack,
    its radius for pixels from 0 to 1, and how many images."""

    row: str
    knows: str | None
    attack: Attack | None
    eps: float
    num: int


def table_cells() -> list[Cell]:
    """Those of the table, what is asked first before the rest."""
    found = [Cell(row, None, None, 0.0, num) for row, num in NUM.items()]
    for eps in RADII:
        found += [Cell(row, 'blind', BLIND, eps, num) for row, num in NUM.items()]
    found += [Cell('smoothing', 'full', ADAPTIVE, eps, 500) for eps in RADII]
    for eps in RADII:
        for row in ('one_step', 'adp', 'sde', 'ode'):
            num = 100 if eps != RADII[0] else 500 if row == 'adp' else 200
            found += [Cell(row, knows, ADAPTIVE, eps, num) for knows in ('full', 'bpda')]
    return found


def strength_cells() -> list[Cell]:
    """Those that show what more steps, draws and another attack change, at the smallest radius."""
    of_all = [PGD(steps=steps, draws=4) for steps in (40, 100)]
    of_all += [PGD(steps=20, draws=draws) for draws in (1, 16)]
    of_all += [APGD(steps=20, draws=4)]
    found = [Cell('none', 'blind', attack, RADII[0], 500) for attack in (PGD(steps=100), AUTO)]
    for row in ('smoothing', 'one_step', 'adp'):
        num = {'smoothing': 200, 'one_step': 100, 'adp': PART}[row]
        found += [Cell(row, 'full', attack, RADII[0], num) for attack in (ADAPTIVE, *of_all)]
    return found


@dataclasses.dataclass(frozen=True)
class Networks:
    """Both classifiers and the score model with their parameters, and the images."""

    classifiers: dict[str, tuple[Classifier, Params]]
    model: ScoreModel
    score: Params
    images: Images
    workdir: pathlib.Path
    mesh: Mesh

    def trials(self, row: Row, part: int) -> Trials:
        """One part of the images before a row's defence."""
        classifier, params = self.classifiers[row.classifier]

        def gather(indices):
            return self.images.gather(part * PART + indices)

        return Trials(
            trial=Trial(classifier, self.model, row.purifier, seed=part),
            images=dataclasses.replace(self.images, length=PART, gather=gather),
            classifier=params,
            score=self.score,
            checkpoint=Checkpoint(params, self.workdir, int(fingerprints.checksum(params))),
            runs=RUNS if row.purifier.is_random else 1,
            batch_size=PART,
            mesh=self.mesh,
        )

    def find(self, cell: Cell, part: int) -> Arrays:
        """What robustness.judge says of each image of a part."""
        row, attacked = ROWS[cell.row], None
        trials = self.trials(row, part)
        if cell.knows is not None:
            # Of one who knows the classifier alone, the same images for all rows that have it.
            blind = self.trials(row._replace(purifier=Nothing()), part)
            attacker = blind if cell.knows == 'blind' else trials
            [attacked] = attacker.attacked(cell.attack, cell.knows, [2 * cell.eps])
        return trials.judged(attacked)


def load(given: argparse.Namespace) -> Networks:
    """All of it, from the workdirs of the command line."""
    mesh = sharding.create_mesh()
    paths = {'clean': given.classifier, 'noisy': given.noisy}
    classifiers = {name: trained.load('--' + name, pathlib.Path(p)) for name, p in paths.items()}
    shape = classifiers['clean'][0].image_shape
    path = pathlib.Path(given.score)
    config, model, score = trained.load_score_model('--score', path, shape, centered=True)
    images = reading.load_images(config.data, 'test', 0)
    place = functools.partial(sharding.put, layout=sharding.copied(mesh))
    placed = {name: (model, place(params)) for name, (model, params) in classifiers.items()}
    return Networks(placed, model, place(score), images, pathlib.Path(given.workdir), mesh)


def kept(workdir: pathlib.Path, cell: Cell, part: int) -> pathlib.Path:
    """Where a part of a cell is kept."""
    name = fingerprints.fingerprint([*map(str, cell[:4]), str(ROWS[cell.row]), part, RUNS])
    return workdir / 'cells' / f'{name}.npz'


def fill(networks: Networks, cells: list[Cell], until: float) -> None:
    """Finds what is missing, the first part of all cells before the second, until a time."""
    for part in range(max(cell.num for cell in cells) // PART):
        for cell in (cell for cell in cells if part * PART < cell.num):
            if time.monotonic() > until:
                return
            path = kept(networks.workdir, cell, part)
            if resumable.load(path) is None:
                resumable.save(path, networks.find(cell, part))


def table(workdir: pathlib.Path, cells: list[Cell]) -> Iterator[str]:
    """Rows of the cells of which there is something."""
    yield '| defence | attacker knows | attack | eps | images | mean logits | one run | all runs |'
    yield '| --- ' * 8 + '|'
    for cell in cells:
        parts = [resumable.load(kept(workdir, cell, part)) for part in range(cell.num // PART)]
        parts = [part for part in parts if part is not None]
        if parts:
            found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            attack = '' if cell.attack is None else described(cell.attack)
            told = [share(found[name]) for name in ('by_mean', 'single', 'always')]
            of_cell = ROWS[cell.row].title, cell.knows or '', attack, f'{cell.eps:g}'
            yield '| ' + ' | '.join([*of_cell, str(len(found['single'])), *told]) + ' |'


def step_sizes(networks: Networks) -> Iterator[str]:
    """How long the first and the last step of an ascent are on clean images, in units of the square
    of the noise's level, with which a step leads to E[x_0 | y]; and how far from the image it
    starts.
    """
    trials = networks.trials(ROWS['adp'], 0)
    x = trials.trial.images(trials.images.gather(np.arange(PART)))
    yield '| rule | step | step / level^2: mean, least, most | distance from the image |'
    yield '| --- ' * 4 + '|'
    for name in ('adp', 'published'):
        rule = ROWS[name].purifier
        for k in (0, rule.steps - 1):
            run = jax.jit(functools.partial(step_of, networks.model, rule, k))
            sizes, y = run(networks.score, x)
            away = float(jnp.sqrt(jnp.mean((y - x) ** 2)))
            told = f'{sizes.mean():.2f}, {sizes.min():.2f}, {sizes.max():.2f}'
            yield f'| {ROWS[name].title} | {k + 1} | {told} | {away:.3f} |'


def step_of(
    model: ScoreModel, rule: ADP | PublishedADP, k: int, params: Params, x: State
) -> tuple[PerImage, State]:
    """The length of step k, counted from 0, and where it starts."""
    process, image_keys = model.process(params), keys.per_image(jax.random.key(0), len(x))
    y = rule.noised(image_keys, x)
    if k:
        y = dataclasses.replace(rule, steps=k)(image_keys, process, x).x
    level = rule.levels[k] if isinstance(rule, ADP) else rule.level
    curvature = ascent(process, y, time_of(process.sde, level)).curvature
    sizes = rule.step_size(curvature, level) if isinstance(rule, ADP) else rule.step_size(curvature)
    return sizes / level**2, y


def share(values: np.ndarray) -> str:
    """Of images, in per cent, and its standard error."""
    found = quantities.mean('', values)
    return f'{100 * found.value:.1f} ± {100 * (found.standard_error or 0):.1f}'


def described(attack: Attack) -> str:
    """Its name, steps, draws and restarts."""
    restarts = f', {attack.restarts} restarts' if attack.restarts > 1 else ''
    draws = f', {attack.draws} draws' if attack.draws > 1 else ''
    return f'{type(attack).__name__}-{attack.steps}{draws}{restarts}'


def main() -> None:
    """Prints the table, after the time that there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('workdir')
    parser.add_argument('--score', default='runs/demo')
    parser.add_argument('--classifier', default='runs/clean')
    parser.add_argument('--noisy', default='runs/classifier')
    parser.add_argument('--minutes', type=float, default=1e9, help='0: what there is already')
    parser.add_argument('--steps', action='store_true', help='how long steps are, and no attacks')
    given = parser.parse_args()
    until, tables = time.monotonic() + 60 * given.minutes, [table_cells(), strength_cells()]
    sharding.use_cores(PART)
    program_cache.keep_programs()
    if given.steps:
        print('\n'.join(step_sizes(load(given))))
        return
    if given.minutes:
        fill(load(given), [cell for cells in tables for cell in cells], until)
    print(machine.name())
    for cells in tables:
        print('\n' + '\n'.join(table(pathlib.Path(given.workdir), cells)))


if __name__ == '__main__':
    main()

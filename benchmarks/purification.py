"""The tables of docs/purification.md: attacks on a classifier of digits with purifiers before it.

    python -m benchmarks.purification WORKDIR [--minutes 7] > tables.md

Parts of 50 images are kept in WORKDIR, the first of all trials before the second, so that it can
be stopped and goes on by the same command; `--minutes` begins no part after that time. By default
the networks are those of `make demo`, runs/demo and runs/classifier, and that of
configs/ve/mnist_classifier_clean.py, runs/clean; images are those of their test split, which none
of them was trained on. About an hour and a half on two cores.
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


# Which are compared digit by digit: the second under the same attack as the first.
PAIRS = (
    ('adp', 'smoothing', 'full', 0.1),
    ('adp', 'published', 'blind', 0.3),
    ('adp', 'one_step', 'blind', 0.3),
    ('adp', 'one_step', 'full', 0.3),
)


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
            num = 500 if row == 'adp' and eps == RADII[0] else 200
            found += [Cell(row, knows, ADAPTIVE, eps, num) for knows in ('full', 'bpda')]
    return found


def strength_cells() -> list[Cell]:
    """Those that show what more steps, draws and another attack change, at the smallest radius; and
    of more steps at the largest.
    """
    of_all = [PGD(steps=steps, draws=4) for steps in (40, 100)]
    of_all += [PGD(steps=20, draws=draws) for draws in (1, 16)]
    of_all += [APGD(steps=20, draws=4)]
    found = [Cell('none', 'blind', attack, RADII[0], 500) for attack in (PGD(steps=100), AUTO)]
    for row in ('smoothing', 'one_step', 'adp'):
        num = {'smoothing': 200, 'one_step': 100, 'adp': PART}[row]
        found += [Cell(row, 'full', attack, RADII[0], num) for attack in (ADAPTIVE, *of_all)]
    for row in ('smoothing', 'one_step', 'adp'):
        found += [Cell(row, 'full', attack, RADII[1], PART) for attack in (ADAPTIVE, of_all[1])]
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


def found_of(workdir: pathlib.Path, cell: Cell) -> Arrays | None:
    """What there is of a cell, of all images so far."""
    parts = [resumable.load(kept(workdir, cell, part)) for part in range(cell.num // PART)]
    parts = [part for part in parts if part is not None]
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]} if parts else None


def table(workdir: pathlib.Path, cells: list[Cell], knows: str) -> Iterator[str]:
    """A row for each defence against one attacker, a column for each radius; of the blind one also
    without an attack. Shares in per cent by mean logits, of single runs, of images that are right
    in all runs; how many images.
    """
    others = (None,) if knows == 'blind' else ()
    of_attacker = [cell for cell in cells if cell.knows in (knows, *others)]
    columns = sorted({cell.eps for cell in of_attacker})
    yield '| defence | ' + ' | '.join(f'{eps:g}' if eps else 'clean' for eps in columns) + ' |'
    yield '| --- ' * (1 + len(columns)) + '|'
    for row, (title, *_) in ROWS.items():
        of_row = {cell.eps: cell for cell in of_attacker if cell.row == row}
        found = [found_of(workdir, of_row[eps]) if eps in of_row else None for eps in columns]
        if any(found):
            yield '| ' + ' | '.join([title, *map(told, found)]) + ' |'


def least_table(workdir: pathlib.Path, cells: list[Cell]) -> Iterator[str]:
    """Of mean logits without an attack, and the least of all attackers at each radius, of defences
    that adaptive ones were set on.
    """
    columns = [0.0, *sorted(RADII)]
    yield '| defence | clean | ' + ' | '.join(f'{eps:g}' for eps in columns[1:]) + ' |'
    yield '| --- ' * (1 + len(columns)) + '|'
    for row in dict.fromkeys(cell.row for cell in cells if cell.knows == 'full'):
        shown = []
        for eps in columns:
            of_eps = [cell for cell in cells if cell.row == row and cell.eps == eps]
            found = [found_of(workdir, cell) for cell in of_eps]
            shares = [quantities.mean('', 100 * each['by_mean']) for each in found if each]
            least = min(shares, key=lambda share: share.value, default=None)
            shown.append(f'{least.value:.1f} ± {least.standard_error:.1f}' if least else '')
        yield '| ' + ' | '.join([ROWS[row].title, *shown]) + ' |'


def difference_table(workdir: pathlib.Path, cells: list[Cell]) -> Iterator[str]:
    """Of two defences under the same attack, digit by digit, by mean logits."""
    yield '| defence | less that of | attacker knows | eps | points | digits |'
    yield '| --- ' * 6 + '|'
    for row, other, knows, eps in PAIRS:
        of_both = [c for name in (row, other) for c in cells if c[:2] == (name, knows)]
        pair = [found_of(workdir, cell) for cell in of_both if cell.eps == eps]
        if all(pair):
            num = min(len(found['by_mean']) for found in pair)
            ours, theirs = (found['by_mean'][:num].astype(float) for found in pair)
            points = quantities.mean('', 100 * (ours - theirs))
            told_of = f'{points.value:.1f} ± {points.standard_error:.1f}', str(num)
            yield (
                '| '
                + ' | '.join([ROWS[row].title, ROWS[other].title, knows, f'{eps:g}', *told_of])
                + ' |'
            )


def strength_table(workdir: pathlib.Path, cells: list[Cell]) -> Iterator[str]:
    """A row for each attack of which there is something."""
    yield '| defence | attacker knows | attack | eps | right in per cent |'
    yield '| --- ' * 5 + '|'
    for cell in cells:
        found = found_of(workdir, cell)
        if found is not None:
            attack = described(cell.attack)
            cells_of = ROWS[cell.row].title, cell.knows, attack, f'{cell.eps:g}', told(found)
            yield '| ' + ' | '.join(cells_of) + ' |'


def told(found: Arrays | None) -> str:
    """By mean logits with its standard error / of single runs / in all runs, of so many images."""
    if found is None:
        return ''
    by_mean, single, always = (
        quantities.mean('', 100 * found[name]) for name in ('by_mean', 'single', 'always')
    )
    error = by_mean.standard_error or 0
    num = len(found['single'])
    return f'{by_mean.value:.1f} ± {error:.1f} / {single.value:.0f} / {always.value:.0f} ({num})'


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


def described(attack: Attack) -> str:
    """Its name, steps, draws and restarts."""
    restarts = f', {attack.restarts} restarts' if attack.restarts > 1 else ''
    draws = f', {attack.draws} draws' if attack.draws > 1 else ''
    return f'{type(attack).__name__}-{attack.steps}{draws}{restarts}'


def main() -> None:
    """Prints the tables, after the time that there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('workdir')
    parser.add_argument('--score', default='runs/demo')
    parser.add_argument('--classifier', default='runs/clean')
    parser.add_argument('--noisy', default='runs/classifier')
    parser.add_argument('--minutes', type=float, default=1e9, help='0: what there is already')
    parser.add_argument('--steps', action='store_true', help='how long steps are, and no attacks')
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    cells, strength = table_cells(), strength_cells()
    sharding.use_cores(PART)
    program_cache.keep_programs()
    if given.steps:
        print('\n'.join(step_sizes(load(given))))
        return
    if given.minutes:
        fill(load(given), [*cells, *strength], until)
    print(machine.name())
    workdir = pathlib.Path(given.workdir)
    for knows in ('blind', 'bpda', 'full'):
        print(f'\n{knows}\n\n' + '\n'.join(table(workdir, cells, knows)))
    print('\nleast\n\n' + '\n'.join(least_table(workdir, cells)))
    print('\n' + '\n'.join(difference_table(workdir, cells)))
    print('\n' + '\n'.join(strength_table(workdir, strength)))


if __name__ == '__main__':
    main()

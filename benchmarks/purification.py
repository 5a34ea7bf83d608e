"""The tables of docs/purification.md: attacks on a classifier of digits with purifiers before it.

    python -m benchmarks.purification WORKDIR --score runs/demo --classifier runs/clean \
        --noisy runs/classifier [--minutes 7] [--only one_step,adp] > table.md

Every batch of every trial is kept in WORKDIR, so that it can be stopped and goes on by the same
command; with `--minutes` it begins no trial after that time. The three networks are those that
`make demo` trains and that of configs/ve/mnist_classifier_clean.py; images are those of their test
split, which none of them was trained on.
"""

import argparse
import dataclasses
import functools
import pathlib
import time
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

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
from storage import fingerprints
from storage.resumable import Arrays
from training import Params

BATCH = 50
RUNS = 10
LEVEL = 0.5  # 0.25 for pixels from 0 to 1
RADII = 0.1, 0.3, 0.2  # for pixels from 0 to 1
BLIND = PGD(steps=40)
ADAPTIVE = PGD(steps=20, draws=4)
AUTO = APGD(steps=40, restarts=3)
SEED = 0
# Test images of each row, without an attack and with one that does not know of the purifier.
NUM = {
    **dict.fromkeys(('none', 'noise', 'smoothing', 'one_step', 'adp'), 500),
    **dict.fromkeys(('sde', 'ode', 'adp5'), 200),
    'published': 100,
}


class Row(NamedTuple):
    """A defence: its title, its classifier, 'clean' or 'noisy', its purifier."""

    title: str
    classifier: str
    purifier: Purifier

    @property
    def is_random(self) -> bool:
        """Whether runs differ."""
        return not isinstance(self.purifier, Nothing)


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
            num = 200 if row in ('one_step', 'adp') and eps == RADII[0] else 100
            found += [Cell(row, knows, ADAPTIVE, eps, num) for knows in ('full', 'bpda')]
    return found


def strength_cells() -> list[Cell]:
    """Those that show what more steps, draws and another attack change, at the smallest radius."""
    of_all = [PGD(steps=steps, draws=4) for steps in (40, 100)]
    of_all += [PGD(steps=20, draws=draws) for draws in (1, 16)]
    of_all += [APGD(steps=20, draws=4)]
    found = [Cell('none', 'blind', attack, RADII[0], 500) for attack in (PGD(steps=100), AUTO)]
    for row in ('smoothing', 'one_step', 'adp'):
        num = 200 if row == 'smoothing' else 100
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

    def trials(self, row: Row, num: int) -> Trials:
        """The first so many images before a row's defence."""
        classifier, params = self.classifiers[row.classifier]
        return Trials(
            trial=Trial(classifier, self.model, row.purifier, SEED),
            images=dataclasses.replace(self.images, length=num),
            classifier=params,
            score=self.score,
            checkpoint=Checkpoint(params, self.workdir, int(fingerprints.checksum(params))),
            runs=RUNS if row.is_random else 1,
            batch_size=BATCH,
            mesh=self.mesh,
        )

    def find(self, cell: Cell) -> Arrays:
        """What robustness.judge says of each image."""
        row, attacked = ROWS[cell.row], None
        trials = self.trials(row, cell.num)
        if cell.knows == 'blind':
            # Of one who knows the classifier alone, the same images for all rows that have it.
            blind = self.trials(row._replace(purifier=Nothing()), 500)
            [attacked] = blind.attacked(cell.attack, 'blind', [2 * cell.eps])
            attacked = attacked[: cell.num]
        elif cell.knows is not None:
            [attacked] = trials.attacked(cell.attack, cell.knows, [2 * cell.eps])
        return trials.judged(attacked)


def load(given: argparse.Namespace) -> Networks:
    """All of it, from the workdirs of the command line."""
    mesh = sharding.create_mesh()
    paths = {'clean': given.classifier, 'noisy': given.noisy}
    classifiers = {name: trained.load('--' + name, pathlib.Path(p)) for name, p in paths.items()}
    shape = classifiers['clean'][0].image_shape
    config, model, score = trained.load_score_model(
        '--score', pathlib.Path(given.score), shape, True
    )
    images = reading.load_images(config.data, 'test', 0)
    place = functools.partial(sharding.put, layout=sharding.copied(mesh))
    placed = {name: (model, place(params)) for name, (model, params) in classifiers.items()}
    return Networks(placed, model, place(score), images, pathlib.Path(given.workdir), mesh)


def told(found: Arrays, name: str) -> str:
    """A share of images in per cent, and its standard error."""
    share = quantities.mean('', found[name].astype(np.float64))
    return f'{100 * share.value:.1f} ± {100 * (share.standard_error or 0):.1f}'


def main() -> None:
    """Prints a line for each cell, as it is found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('workdir')
    parser.add_argument('--score', default='runs/demo')
    parser.add_argument('--classifier', default='runs/clean')
    parser.add_argument('--noisy', default='runs/classifier')
    parser.add_argument('--minutes', type=float, default=1e9)
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    sharding.use_cores(BATCH)
    program_cache.keep_programs()
    networks = load(given)
    print(f'{machine.name()}\n')
    print('| defence | attacker knows | attack | eps | images | mean logits | one run | all runs |')
    print('| --- ' * 8 + '|')
    for cell in [*table_cells(), *strength_cells()]:
        if time.monotonic() > until:
            break
        found = networks.find(cell)
        attack = '' if cell.attack is None else described(cell.attack)
        numbers = [told(found, name) for name in ('by_mean', 'single', 'always')]
        cells = [
            ROWS[cell.row].title,
            cell.knows or '',
            attack,
            f'{cell.eps:g}',
            cell.num,
            *numbers,
        ]
        print('| ' + ' | '.join(map(str, cells)) + ' |', flush=True)


def described(attack: Attack) -> str:
    """Its name, steps and draws."""
    name = type(attack).__name__
    return f'{name}-{attack.steps}, {attack.draws} draws'


if __name__ == '__main__':
    main()

"""Digits of a latent score model against those of a score model of pixels: their distance from test
digits, and how many come in a second.

    python -m benchmarks.latent_sampling --pixels runs/demo --latent runs/lsgm_values \
        --classifier runs/classifier [--num 1000] [--sets 3]

`--pixels` and `--latent` are workdirs of trained runs, the first as `make demo` leaves it; of the
second docs/latent.md has the commands. Distances are Fréchet distances of the classifier's features
from the test digits of the pixels' run, as in docs/quality.md, each of `num` images; means over
sets of them, with their standard errors. An image of the latent model is the mean of the pixels
that a code is decoded to. `reconstructions` are the test digits of its own run, encoded and
decoded, which no prior of its codes can improve on; `training digits` are those of the pixels' run.

Rates are of compiled programs that take turns, in batches of the same size: by the clock, and by
the seconds of all cores, which hold where other programs run too.
"""

import argparse
import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

import keys
from benchmarks import machine
from configs import base
from datasets import loading
from devices import sharding
from evaluation import distances, extractors, quality
from evaluation.batchwise import Draws
from experiments import image_drawing, kinds, latent_measures, programs, run_files, trained
from experiments.experiment import Experiment
from shapes import HostPixels
from storage import workdirs
from training import Params

PIXELS = {
    'pixels, adaptive ODE': {'method': 'ode', 'rtol': 1e-2, 'atol': 1e-2},
    'pixels, DPM-Solver++ 2M': {'method': 'dpmpp_2m', 'steps': 9, 'grid': 'log_snr'},
}
# One evaluation more, for the last denoising, makes 10.
LATENT = {'latent, DPM-Solver++ 2M': {'method': 'dpmpp_2m', 'steps': 9, 'grid': 'log_snr'}}
BATCH = 64
TURNS = 3


class Run(NamedTuple):
    """A trained run: the values of its config, what is trained, and the averaged parameters."""

    config: base.ConfigDict
    experiment: Experiment
    params: Params


def load(workdir: pathlib.Path, mesh) -> Run:
    """The newest checkpoint of a workdir."""
    config = base.recorded(workdirs.read_config(workdir))
    experiment = kinds.create(config, mesh)
    return Run(config, experiment, run_files.restore(config, workdir, experiment, mesh).evaluated)


def draws_of(run: Run, fields: dict, num: int, mesh) -> Draws:
    """How a run draws images with these fields of config.sampling."""
    run.config.sampling.update({**fields, 'batch_size': BATCH})
    create = image_drawing.create_drawing
    if run.config.experiment == 'latent_score_model':
        create = latent_measures.drawing
    drawing = create(run.config, run.experiment.model, fields['method'])
    return programs.draws(drawing, mesh, num)


def reconstructions(run: Run, num: int) -> HostPixels:
    """The first test digits of a latent run, each encoded and decoded."""
    model, pixels = run.experiment.model, run.experiment.data('test').gather(np.arange(num))

    def reconstruct(params, key, pixels):
        keys_pixels, keys_codes = keys.split(keys.per_image(key, len(pixels)), 2)
        noises = model.noises_of_each(keys_codes)
        found = model.through(params, model.of_each(keys_pixels, pixels), noises)
        return model.format.to_uint8(model.mean(found.features))

    return np.asarray(jax.jit(reconstruct)(run.params, jax.random.key(0), pixels['image']))


def judge(classifier: pathlib.Path, reference: loading.Images, mesh) -> Callable:
    """The distance of images from the reference."""
    by = extractors.create(trained.features('--classifier', classifier), mesh)

    def features(images):
        return quality.extract(by, images, 250, len(images), mesh, f'{len(images)} images')

    target = distances.gaussian(features(reference).moments)

    def distance(images):
        fitted = distances.fit(features(images).features)
        return distances.frechet_distance(fitted, target)

    return distance


class Rate(NamedTuple):
    """Images a second by the clock, and for a second of a core."""

    clock: float
    core: float


def rates(draws: dict[str, tuple[Draws, Params]]) -> dict[str, Rate]:
    """Of each way to draw; ways take turns, of which the first does not count."""
    seconds = {name: [] for name in draws}
    for _ in range(TURNS + 1):
        for name, (of_run, params) in draws.items():
            clock, core = time.perf_counter(), time.process_time()
            of_run.of_indices(params, np.arange(of_run.size))
            seconds[name].append((time.perf_counter() - clock, time.process_time() - core))
    return {
        name: Rate(*(BATCH / np.median(of_way[1:], axis=0))) for name, of_way in seconds.items()
    }


def main() -> None:
    """Prints the table, and how many times faster the latent model is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ('pixels', 'latent', 'classifier'):
        parser.add_argument(f'--{name}', type=pathlib.Path, required=True)
    parser.add_argument('--num', type=int, default=1000)
    parser.add_argument('--sets', type=int, default=3)
    args = parser.parse_args()

    sharding.use_cores(BATCH)
    mesh = sharding.create_mesh()
    of_pixels, of_latent = load(args.pixels, mesh), load(args.latent, mesh)
    reference, training = (of_pixels.experiment.data(split) for split in ('test', 'train'))
    distance = judge(args.classifier, reference, mesh)
    ways = {
        **{name: (of_pixels, fields) for name, fields in PIXELS.items()},
        **{name: (of_latent, fields) for name, fields in LATENT.items()},
    }
    draws = {
        name: (draws_of(run, fields, args.num * args.sets, mesh), run.params)
        for name, (run, fields) in ways.items()
    }
    per_second = rates(draws)
    print(f'{args.num} images each, in batches of {BATCH}; {machine.name()}\n')
    print('| | evaluations | fd_classifier | images a second | images a second of a core |')
    print('| --- ' * 5 + '|')
    floor = distance(dataclasses.replace(training, length=args.num))
    print(f'| training digits | | {floor:.2f} | | |')
    num = min(args.num, len(of_latent.experiment.data('test')))
    found = distance(loading.from_arrays(reconstructions(of_latent, num)))
    print(f'| latent, {num} reconstructions | | {found:.2f} | | |', flush=True)
    for name, (of_run, params) in draws.items():
        drawn = of_run(params)
        sets = np.split(drawn.pixels, args.sets)
        values = [distance(loading.from_arrays(each)) for each in sets]
        told = f'{statistics.mean(values):.2f}'
        if len(values) > 1:
            told += f' ± {statistics.stdev(values) / len(values) ** 0.5:.2f}'
        print(
            f'| {name} | {drawn.nfe.mean():.0f} | {told} '
            f'| {per_second[name].clock:,.1f} | {per_second[name].core:,.1f} |',
            flush=True,
        )
    latent, pixels = (per_second[next(iter(ways))] for ways in (LATENT, PIXELS))
    clock, core = latent.clock / pixels.clock, latent.core / pixels.core
    print(
        f'\nTimes as many images, latent over pixels: {clock:.0f} by the clock, '
        f'{core:.0f} by seconds of a core'
    )


if __name__ == '__main__':
    main()

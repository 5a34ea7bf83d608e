"""Evaluation: what `--mode=eval` measures of checkpoints, for `eval/<step>/` and the terminal.

What a batch was found to be is kept in `eval/<step>/parts/` (parts.py), so that an evaluation that
was interrupted ends, by the same command, with the numbers of one that was not. Seconds cannot be
the same: rates are in `rates.json`, and all other numbers in `metrics.json`.
"""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import run_lib
from choices import InputError
from datasets import batching, loading
from devices import processes, sharding
from evaluation import bits_per_dim, quality
from evaluation.bits_per_dim import BitsPerDim
from evaluation.quality import Quality
from experiments.experiment import (
    Classifier,
    ScoreModel,
    create_class_scores,
    create_experiment,
    create_loss,
)
from experiments.samplers import create_sampler
from reports import exhibits, pictures, report
from storage import fingerprints, resumable, workdirs

WAIT_SECONDS = 2.0  # between looks for a checkpoint that is still to come
# Of these the most is best; of all other numbers the least.
HIGHER_IS_BETTER = ('accuracy', 'precision', 'recall', 'density', 'coverage', 'score')
Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What measures have in common: a config, what it makes, and the images they are of."""

    config: ConfigDict
    experiment: ScoreModel | Classifier
    mesh: Mesh
    test_images: loading.Images


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The parameters that are measured, and where their numbers and pictures go."""

    params: Any
    directory: pathlib.Path
    checksum: int


# Numbers, and rates in images a second.
Measure = Callable[[Checkpoint], tuple[Found, Found]]


def evaluate(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Measures what config.eval asks for, of the checkpoints that it names."""
    mesh = sharding.create_mesh(**config.mesh)
    check_range(config)
    experiment = create_experiment(config)
    evaluation = Evaluation(config, experiment, mesh, run_lib.load_images(config, 'test'))
    measures = create_measures(evaluation, workdir)
    found = {}
    for step in steps(config, workdir):
        state = run_lib.restore(config, workdir, experiment, mesh, step)
        step = int(state.step)
        found[step] = evaluate_one(step, state.ema_params, measures, workdir / 'eval' / str(step))
        print(table(found[step]))
        processes.on_first(report.write, workdir)
        print(f'Pictures and numbers are in {workdir / "eval"}, and in {workdir / report.NAME}')
    if config.eval.best_by:
        print(best(found, config.eval.best_by))


def evaluate_one(step: int, params: Any, measures: list[Measure], directory: pathlib.Path) -> Found:
    """Numbers and rates of one checkpoint, which are put in its directory."""
    checkpoint = Checkpoint(params, directory, int(fingerprints.checksum(params)))
    numbers, rates = {'step': step}, {}
    for measure in measures:
        more_numbers, more_rates = measure(checkpoint)
        numbers |= more_numbers
        rates |= more_rates
    processes.on_first(workdirs.write_json, directory / 'rates.json', rates)
    processes.on_first(workdirs.write_json, directory / 'metrics.json', numbers)
    return numbers | rates


# Which checkpoints


def check_range(config: ConfigDict) -> None:
    """Raises InputError for fields of config.eval that name no checkpoints."""
    fields = config.eval
    if len(fields.checkpoints) not in (0, 2):
        raise InputError(
            f'eval.checkpoints: {fields.checkpoints}; the first and the last step, or () needed'
        )
    if fields.checkpoints and fields.checkpoint is not None:
        raise InputError(
            f'eval.checkpoint: {fields.checkpoint}, and eval.checkpoints: {fields.checkpoints}; '
            'one of them is to be None or ()'
        )
    if fields.wait and not fields.checkpoints:
        raise InputError(f'eval.wait: {fields.wait} seconds, and no eval.checkpoints to wait for')


def steps(config: ConfigDict, workdir: pathlib.Path) -> Iterator[int | None]:
    """The steps of config.eval, as their checkpoints appear; None is the newest.

    Raises InputError if there are none, and if eval.wait seconds bring no more before the last.
    """
    fields = config.eval
    if not fields.checkpoints:
        yield fields.checkpoint
        return
    processes.from_first(lambda: workdirs.check_same_run(workdir, config.to_dict()))
    first, last = fields.checkpoints
    after, since = first - 1, processes.from_first(time.monotonic)
    while after < last:
        with run_lib.open_checkpoints(config, workdir, read_only=True) as checkpoints:
            known = checkpoints.steps()
        following = [step for step in known if after < step <= last]
        if following:
            after = following[0]
            yield after
            since = processes.from_first(time.monotonic)
        elif after >= first and not fields.wait:
            return
        elif processes.from_first(time.monotonic) - since >= fields.wait:
            raise InputError(
                f'eval.checkpoints: none of steps {after + 1} to {last} within {fields.wait:g} '
                f'seconds (eval.wait); there are: {known}'
            )
        else:
            time.sleep(WAIT_SECONDS)


def best(found: dict[int, Found], name: str) -> str:
    """One line on the checkpoint that is best by one number."""
    values = {step: numbers[name] for step, numbers in found.items() if name in numbers}
    if not values:
        known = sorted(set().union(*found.values())) if found else []
        raise InputError(f'eval.best_by: nothing measured is named {name!r}; there are: {known}')
    choice = max if any(word in name for word in HIGHER_IS_BETTER) else min
    step = choice(values, key=values.get)
    return f'Best by {name}: step {step}, {values[step]:.4g}'


# What is measured


def create_measures(evaluation: Evaluation, workdir: pathlib.Path) -> list[Measure]:
    """What config.eval asks for; raises InputError if that does not go together."""
    config, experiment, mesh = evaluation.config, evaluation.experiment, evaluation.mesh
    run_lib.check_batch_sizes(mesh, config, 'eval.batch_size')
    measures = [test_loss_measure(evaluation)] if config.eval.loss else []
    if isinstance(experiment, Classifier):
        return [*measures, accuracy_measure(evaluation)]
    run_lib.check_batch_sizes(mesh, config, 'sampling.batch_size')
    if config.eval.bpd:
        measures.append(bits_per_dim_measure(evaluation))
    judge = create_quality(config, experiment, mesh, workdir)
    for method in config.eval.samplers:
        measures.append(sampler_measure(evaluation, method, judge))
    if judge:
        measures.append(lambda _: (judge.floor(num_eval_samples(config)), {}))
    if config.eval.exhibits:
        measures.append(exhibits_measure(evaluation))
    return measures


def test_loss_measure(evaluation: Evaluation) -> Measure:
    """The training objective on the whole test split."""
    loss = create_loss(evaluation.config, evaluation.experiment)
    run = sharding.jit(
        evaluation.mesh, lambda params, key, batch: {'loss': loss(params, key, batch, False)}
    )

    def measure(checkpoint):
        found = over_test_images(evaluation, checkpoint, 'loss', run, [])['loss']
        return {'test_loss': found.mean(), 'test_loss_standard_error': standard_error(found)}, {}

    return measure


def accuracy_measure(evaluation: Evaluation) -> Measure:
    """Accuracy and cross-entropy on the test split, clean and at eval.noise_levels."""
    config, classifier = evaluation.config, evaluation.experiment
    class_scores = create_class_scores(config, classifier)
    run_lib.check_labels(config, classifier, evaluation.test_images)
    names = ['clean', *[f't={level:g}T' for level in config.eval.noise_levels]]

    def of_batch(params, key, batch):
        found = class_scores(params, key, batch)
        return {'accuracy': found.correct.T, 'cross_entropy': found.cross_entropy.T}

    run = sharding.jit(evaluation.mesh, of_batch)

    def measure(checkpoint):
        found = over_test_images(evaluation, checkpoint, 'accuracy', run, ['noise_levels'])
        return {
            f'{kind}_{name}': value
            for kind, rows in found.items()
            for name, value in zip(names, rows.mean(0, dtype=np.float64), strict=True)
        }, {}

    return measure


def bits_per_dim_measure(evaluation: Evaluation) -> Measure:
    """Bits per dimension of the first images of the test split."""
    config = evaluation.config
    run = create_run_bits_per_dim(config, evaluation.experiment, evaluation.mesh)
    data = evaluation.test_images
    first = dataclasses.replace(
        data, length=min(config.eval.num_bpd_images or len(data), len(data))
    )
    evaluation = dataclasses.replace(evaluation, test_images=first)

    def measure(checkpoint):
        arrays = over_test_images(evaluation, checkpoint, 'bits_per_dim', run, bits_per_dim.FIELDS)
        means = arrays['by_draw'].mean(axis=(1, 2))
        path = checkpoint.directory / 'bits_per_dim.npz'
        processes.on_first(resumable.save, path, {'bits_per_dim': means, **arrays})
        found = BitsPerDim(**{**dict.fromkeys(BitsPerDim._fields), **arrays})
        return bits_per_dim.summary(found, config.eval.divergence), {}

    return measure


def create_run_bits_per_dim(config: ConfigDict, model: ScoreModel, mesh: Mesh) -> Callable:
    """Bits per dimension of a batch as a program of its own: arrays by name, that are asked for."""
    measure_batch, key = bits_per_dim.create(config, model), jax.random.key(config.seed)

    def of_batch(params, _, batch):
        found = measure_batch(params, key, batch, batch['index'])
        return {name: array for name, array in found._asdict().items() if array is not None}

    return sharding.jit(mesh, of_batch)


def sampler_measure(evaluation: Evaluation, method: str, judge: Quality | None) -> Measure:
    """Samples by one method, their evaluations, their quality, and their rate once compiled."""
    config, model, mesh = evaluation.config, evaluation.experiment, evaluation.mesh
    draw = create_sampler(config, model, method)
    num = num_eval_samples(config)

    def measure(checkpoint):
        # More samples are further batches of the same size, so that those that are there serve.
        size = min(num, config.sampling.batch_size)
        given = config.sampling.to_dict() | {'num_samples': size}
        directory = parts_directory(evaluation, checkpoint, method, given)
        drawn = run_lib.draw_samples(
            config, model, draw, checkpoint.params, mesh, method, num, directory
        )
        shown = pictures.grid(drawn.pixels[: config.sampling.num_samples])
        path = checkpoint.directory / f'samples_{method}.png'
        processes.on_first(pictures.save_png, path, shown)
        numbers = {f'{method}_nfe': drawn.nfe.mean(dtype=np.float64)}
        if judge:
            numbers |= judge.of_samples(method, drawn.pixels, checkpoint.directory / 'parts')
        return numbers, {f'{method}_samples_per_second': num / drawn.seconds}

    return measure


def exhibits_measure(evaluation: Evaluation) -> Measure:
    """Pictures for the report: no numbers."""
    config, model = evaluation.config, evaluation.experiment
    mesh = evaluation.mesh
    copied = sharding.copied(mesh)
    draw = sharding.jit(mesh, exhibits.create(config, model), out_shardings=copied)
    train_images = run_lib.load_images(config, 'train')

    def measure(checkpoint):
        directory = parts_directory(evaluation, checkpoint, 'exhibits', config.sampling.to_dict())
        ends = evaluation.test_images.gather(exhibits.ENDS % len(evaluation.test_images))
        key = jax.random.key(config.seed)
        found = resumable.keep(
            directory, 0, lambda: jax.device_get(draw(checkpoint.params, key, ends))
        )
        processes.on_first(exhibits.write, checkpoint.directory, found, train_images)
        return {}, {}

    return measure


def num_eval_samples(config: ConfigDict) -> int:
    """How many images of each sampler are looked at."""
    return config.eval.num_samples or config.sampling.num_samples


def create_quality(
    config: ConfigDict, experiment: ScoreModel, mesh: Mesh, workdir: pathlib.Path
) -> Quality | None:
    """What compares samples with data, if config.eval.quality names any network."""
    if not config.eval.quality:
        return None
    return quality.create(
        config.eval,
        num_samples=num_eval_samples(config),
        load=functools.partial(run_lib.load_images, config),
        image_shape=experiment.image_shape,
        cache_dir=workdir / 'features',
        mesh=mesh,
    )


# Batch by batch


def over_test_images(
    evaluation: Evaluation,
    checkpoint: Checkpoint,
    name: str,
    function: Callable,
    fields: Sequence[str],
) -> resumable.Arrays:
    """`function(params, key, batch)`, arrays [batch, ...] by name, of every image once, in order.

    A batch has the indices of its images besides. `fields` of config.eval are those that the
    arrays depend on, besides the size of a batch.
    """
    config, data = evaluation.config, evaluation.test_images
    key = jax.random.key(config.seed)
    given = {field: config.eval[field] for field in ('batch_size', *fields)}
    directory = parts_directory(evaluation, checkpoint, name, given | {'images': len(data)})

    size = config.eval.batch_size

    def of_batch(i, batch):
        placed = sharding.split(evaluation.mesh, batch)
        values = function(checkpoint.params, jax.random.fold_in(key, i), placed)
        return {
            name: array[: len(data) - i * size] for name, array in processes.gather(values).items()
        }

    results = []
    with processes.bar(total=len(data), unit='image', desc=name) as bar:
        for i, batch in enumerate(batching.epoch(data, size, *processes.place())):
            results.append(resumable.keep(directory, i, functools.partial(of_batch, i, batch)))
            bar.update(min(size, len(data) - i * size))
    return {name: np.concatenate([part[name] for part in results]) for name in results[0]}


def parts_directory(
    evaluation: Evaluation, checkpoint: Checkpoint, name: str, given: dict[str, Any]
) -> pathlib.Path:
    """Where the parts of a result lie that depends on what is given, the parameters and the run.

    What else is fixed for a run need not be told apart; see workdirs.py.
    """
    fingerprint = fingerprints.fingerprint(
        given, mesh=dict(evaluation.mesh.shape), checksum=checkpoint.checksum
    )
    return checkpoint.directory / 'parts' / f'{name}_{fingerprint}'


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return values.std(ddof=1) / math.sqrt(len(values))


def table(scalars: dict[str, Any]) -> str:
    """Names and values, one a line."""
    width = max(map(len, scalars))
    return '\n'.join(
        f'{name:<{width}}  {value:.4g}'
        if isinstance(value, float | np.floating)
        else f'{name:<{width}}  {value}'
        for name, value in scalars.items()
    )

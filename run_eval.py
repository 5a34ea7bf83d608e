"""Evaluation: what `--mode=eval` measures of a checkpoint, for `eval/<step>/` and the terminal."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

import bits_per_dim
import datasets
import images
import quality
import run_lib
import sharding
import workdirs
from experiment import (
    Classifier,
    Experiment,
    ScoreModel,
    create_class_scores,
    create_experiment,
    create_loss,
)
from quality import Quality
from samplers import create_sampler


def evaluate(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Measures what config.eval asks for at one checkpoint, for `eval/<step>/` and the terminal."""
    mesh = sharding.create_mesh()
    experiment = create_experiment(config)
    measures = create_measures(config, experiment, mesh, workdir)
    state = run_lib.restore(config, workdir, experiment, mesh)
    directory = workdir / 'eval' / str(int(state.step))
    directory.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {'step': int(state.step)}
    for measure in measures:
        found |= measure(state.ema_params, directory)
    workdirs.write_json(directory / 'metrics.json', found)
    print(table(found))
    print(f'Pictures and numbers are in {directory}')


Measure = Callable[[Any, pathlib.Path], dict[str, float]]


def create_measures(
    config: ConfigDict, experiment: ScoreModel | Classifier, mesh: Mesh, workdir: pathlib.Path
) -> list[Measure]:
    """What config.eval asks for; raises InputError if that does not go together."""
    run_lib.check_batch_sizes(mesh, config, 'eval.batch_size')
    measures = [test_loss_measure(config, experiment, mesh)] if config.eval.loss else []
    if isinstance(experiment, Classifier):
        return [*measures, accuracy_measure(config, experiment, mesh)]
    run_lib.check_batch_sizes(mesh, config, 'sampling.batch_size')
    if config.eval.bpd:
        measures.append(bits_per_dim_measure(config, experiment, mesh))
    judge = create_quality(config, experiment, mesh, workdir)
    for method in config.eval.samplers:
        measures.append(sampler_measure(config, experiment, mesh, method, judge))
    if judge:
        measures.append(lambda params, directory: judge.floor(num_eval_samples(config)))
    return measures


def test_loss_measure(config: ConfigDict, experiment: Experiment, mesh: Mesh) -> Measure:
    """The training objective on the whole test split."""
    loss = create_loss(config, experiment)
    data = run_lib.load_images(config, 'test')
    run = jax.jit(lambda params, key, batch: loss(params, key, batch, False))

    def measure(params, directory):
        losses = over_images(config, data, mesh, 'loss', lambda key, batch: run(params, key, batch))
        return {'test_loss': losses.mean(), 'test_loss_standard_error': standard_error(losses)}

    return measure


def accuracy_measure(config: ConfigDict, classifier: Classifier, mesh: Mesh) -> Measure:
    """Accuracy and cross-entropy on the test split, clean and at eval.noise_levels."""
    class_scores = jax.jit(create_class_scores(config, classifier))
    data = run_lib.load_images(config, 'test')
    run_lib.check_labels(config, classifier, data)
    names = ['clean', *[f't={level:g}T' for level in config.eval.noise_levels]]

    def scores(params, key, batch):
        found = class_scores(params, key, batch)
        return jnp.stack([found.correct, found.cross_entropy]).transpose(2, 0, 1)

    def measure(params, directory):
        run = functools.partial(scores, params)
        means = over_images(config, data, mesh, 'accuracy', run).mean(0)
        return {
            f'{kind}_{name}': value
            for kind, row in zip(('accuracy', 'cross_entropy'), means, strict=True)
            for name, value in zip(names, row, strict=True)
        }

    return measure


def bits_per_dim_measure(config: ConfigDict, experiment: ScoreModel, mesh: Mesh) -> Measure:
    """Bits per dimension of the first images of the test split."""
    run = jax.jit(bits_per_dim.create(config, experiment))
    data = run_lib.load_images(config, 'test')
    num = min(config.eval.num_bpd_images or len(data), len(data))
    key = jax.random.key(config.seed)

    def measure(params, directory):
        found = over_images(
            config,
            dataclasses.replace(data, length=num),
            mesh,
            'bits/dim',
            lambda _, batch: run(params, key, batch, batch['index']),
        )
        arrays = {name: a for name, a in found._asdict().items() if a is not None}
        np.savez(
            directory / 'bits_per_dim.npz', bits_per_dim=found.by_draw.mean(axis=(1, 2)), **arrays
        )
        return bits_per_dim.summary(found, config.eval.divergence)

    return measure


def sampler_measure(
    config: ConfigDict,
    experiment: ScoreModel,
    mesh: Mesh,
    method: str,
    judge: Quality | None,
) -> Measure:
    """Samples by one method, their rate without compilation, their evaluations, their quality."""
    draw = create_sampler(config, experiment, method)
    num = num_eval_samples(config)

    def measure(params, directory):
        drawn, seconds = run_lib.draw_samples(config, draw, params, mesh, method, num)
        shown = drawn.x[: config.sampling.num_samples]
        run_lib.save_grid(directory / f'samples_{method}.png', experiment, shown)
        found = {
            f'{method}_samples_per_second': len(drawn.x) / seconds,
            f'{method}_nfe': drawn.nfe.mean(),
        }
        if judge:
            pixels = np.asarray(images.to_uint8(drawn.x, experiment.centered))
            found |= judge.of_samples(method, pixels)
        return found

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


def over_images(
    config: ConfigDict, data: datasets.Images, mesh: Mesh, name: str, function: Callable
) -> Any:
    """`function(key, batch)`, arrays [batch, ...], of every image once, in order, with a progress
    bar. A batch has the indices of its images besides."""
    key = jax.random.key(config.seed)
    results = []
    with tqdm(total=len(data), unit='image', desc=name, dynamic_ncols=True) as bar:
        for i, batch in enumerate(datasets.epoch(data, config.eval.batch_size)):
            mask = batch.pop('mask')
            batch['index'] = i * len(mask) + np.arange(len(mask))
            values = function(jax.random.fold_in(key, i), sharding.split(mesh, batch))
            results.append(jax.tree.map(lambda a, kept=mask: np.asarray(a)[kept], values))
            bar.update(mask.sum())
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


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

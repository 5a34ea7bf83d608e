"""One training on several meshes and numbers of processes: how far curves, samples and likelihoods
differ, and that each restores the checkpoints of all.

python -m benchmarks.equivalence
"""

import argparse
import functools
import json
import pathlib
import tempfile

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import keys
import run_lib
from benchmarks import launches, machine
from benchmarks.launches import Layout
from datasets import batching
from devices import processes, sharding
from experiments import image_drawing, kinds, run_files, score_measures
from experiments.score_matching import ScoreMatching
from reports import logs
from storage import fingerprints, resumable
from tests import tiny_config
from training import Params

LAYOUTS = {
    '1 device': Layout(),
    '8 devices': Layout(data=8),
    '4 x 2 devices': Layout(data=4, fsdp=2),
    'two processes of 2 devices': Layout(data=4, num_processes=2),
}
# Every step is logged, and kernels are large enough to be split over `fsdp`.
FIELDS = {
    'training.num_steps': 50,
    'training.batch_size': 16,
    'training.steps_per_dispatch': 1,
    'training.log_every': 1,
    'training.eval_every': 0,
    'training.sample_every': 0,
    'model.nf': 24,
    'sampling.steps': 20,
    'sampling.rtol': 1e-6,
    'sampling.atol': 1e-6,
    'eval.batch_size': 16,
    'eval.rtol': 1e-6,
    'eval.atol': 1e-6,
}
METHODS = ('pc', 'ode')


# In processes of their own


def train(layout: Layout, workdir: pathlib.Path, num_steps: int) -> None:
    """Trains as users do."""
    launches.run(layout, *training_command(workdir, num_steps))


def training_command(workdir: pathlib.Path, num_steps: int, **fields) -> list[str]:
    """What `launches` runs."""
    given = {**FIELDS, 'training.num_steps': num_steps, **fields}
    flags = [f'--config.{name}={value}' for name, value in given.items()]
    return ['main.py', launches.CONFIG, '--mode=train', f'--workdir={workdir}', *flags]


def measure(layout: Layout, workdir: pathlib.Path, others: list[pathlib.Path]) -> None:
    """Leaves `measured.npz` in a workdir, and in `checksums.json` what it read of all others."""
    paths = [f'--workdir={workdir}', *(f'--other={path}' for path in others)]
    launches.run(layout, '-m', 'benchmarks.equivalence', *paths)


def measure_here(config: ConfigDict, workdir: pathlib.Path, others: list[pathlib.Path]) -> None:
    """What `measure` leaves, by the processes and on the devices that there are."""
    mesh = sharding.create_mesh(**config.mesh)
    experiment = kinds.create(config, mesh)
    restore = functools.partial(run_files.restore, config, experiment=experiment, mesh=mesh)
    found = arrays(config, experiment, mesh, restore(workdir=workdir).evaluated)
    read = {str(path): int(fingerprints.checksum(restore(workdir=path))) for path in others}
    processes.on_first(resumable.save, workdir / 'measured.npz', found)
    processes.on_first((workdir / 'checksums.json').write_text, json.dumps(read))


def arrays(
    config: ConfigDict, experiment: ScoreMatching, mesh: Mesh, params: Params
) -> resumable.Arrays:
    """Samples of a batch by several methods, and bits/dim of a batch of the test split."""
    model, key = experiment.model, jax.random.key(config.seed)
    rows = batching.own_rows(config.eval.batch_size, *processes.place())
    data = experiment.data('test').gather(rows)
    batch = sharding.split(mesh, {**data, 'index': rows})

    def draw(method):
        """In floats, whose rounding shows."""
        sampler = image_drawing.create_sampler(config, model.sde, method)

        def run(params, image_keys):
            return sampler(image_keys, model.process(params), model.image_shape).x

        return sharding.jit(mesh, run)(params, keys.of_images(key, batch['index']))

    of_batch = score_measures.bits_per_dim_program(config, model, mesh).run
    found = {method: draw(method) for method in METHODS}
    return processes.gather({**found, 'bits_per_dim': of_batch(params, key, batch)['by_draw']})


# Comparison


def curve(workdir: pathlib.Path, name: str) -> np.ndarray:
    """One number of every step."""
    rows = logs.read(workdir / 'logs' / 'metrics.jsonl')
    return np.array([row[name] for row in rows if name in row])


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The greatest relative difference of elements."""
    return float(np.max(np.abs(found - expected) / np.abs(expected)))


def difference_of_range(found: np.ndarray, expected: np.ndarray) -> float:
    """The greatest difference, over the greatest absolute value."""
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def compare(workdir: pathlib.Path, reference: pathlib.Path) -> dict[str, float]:
    """Of two workdirs that were trained and measured."""
    found, expected = (np.load(path / 'measured.npz') for path in (workdir, reference))
    return {
        **{name: difference(curve(workdir, name), curve(reference, name)) for name in CURVES},
        **{method: difference_of_range(found[method], expected[method]) for method in METHODS},
        'bits_per_dim': difference(found['bits_per_dim'], expected['bits_per_dim']),
    }


CURVES = ('loss', 'grad_norm')
# Rounding grows from step to step, and where the loss is flat more in gradients than in losses.
LIMITS = {'loss': 1e-5, 'grad_norm': 1e-3, 'pc': 1e-4, 'ode': 1e-4, 'bits_per_dim': 1e-4}


def checksums(workdir: pathlib.Path) -> dict[str, int]:
    """Of what a layout restored of all checkpoints."""
    return json.loads((workdir / 'checksums.json').read_text())


def configured() -> ConfigDict:
    """The config of all of these runs."""
    config = tiny_config.get_config()
    config.update_from_flattened_dict(FIELDS)
    return config


def table(directory: pathlib.Path) -> None:
    """Trains, measures and compares all layouts."""
    workdirs = {name: directory / str(i) for i, name in enumerate(LAYOUTS)}
    num_steps = FIELDS['training.num_steps']
    for name, layout in LAYOUTS.items():
        train(layout, workdirs[name], num_steps)
    for name, layout in LAYOUTS.items():
        measure(layout, workdirs[name], list(workdirs.values()))
    first, *rest = workdirs.values()
    print(f'{num_steps} steps, float32, against {next(iter(LAYOUTS))}; {machine.name()}\n')
    print('| layout | loss | gradient norm | samples, pc | samples, ode | bits/dim | restored |')
    print('| --- | --- | --- | --- | --- | --- | --- |')
    expected = checksums(first)
    for name, workdir in list(workdirs.items())[1:]:
        same = sum(expected[path] == value for path, value in checksums(workdir).items())
        cells = [f'{value:.1e}' for value in compare(workdir, first).values()]
        print(f'| {name} | {" | ".join(cells)} | {same} of {len(expected)} |')
    assert all(checksums(workdir) == expected for workdir in rest)
    for workdir in rest:
        found = compare(workdir, first)
        assert all(found[name] <= limit for name, limit in LIMITS.items()), (workdir, found)


def main() -> None:
    """Prints the table, or measures one workdir."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', type=pathlib.Path)
    parser.add_argument('--other', type=pathlib.Path, action='append', default=[])
    for axis in ('data', 'fsdp'):
        parser.add_argument(f'--config.mesh.{axis}', dest=axis, type=int)
    parser.add_argument('--coordinator')
    parser.add_argument('--num_processes', type=int)
    parser.add_argument('--process_id', type=int)
    args = parser.parse_args()
    if args.workdir is None:
        with tempfile.TemporaryDirectory() as directory:
            return table(pathlib.Path(directory))
    config = configured()
    config.mesh.update({'data': args.data, 'fsdp': args.fsdp})
    with processes.failing_together():
        joined = processes.join(args.coordinator, args.num_processes, args.process_id)
        run_lib.use_cores(config, joined)
        measure_here(config, args.workdir, args.other)


if __name__ == '__main__':
    main()

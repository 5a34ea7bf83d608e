"""The losses of DEQGAN's comparison on equal terms: the same networks, points, noise, schedule and
number of steps for each, with a rate of its own, which the final residual has chosen.

    python -m benchmarks.deqgan --results runs/deqgan.jsonl [--problems exp sho ...] > tables.md

Of a problem and a loss, the published rates (of the network, and of the discriminator with it) are
tried times each of FACTORS on two seeds (ten of EXP); that with the least median of the final mean
squared residual, which anybody has, is taken for ten seeds. Errors are those of the final iterate,
on a grid four times as fine as that of training that shares no point with it. Each result is a line
of the file, and what is there is not computed again; tables are made of all that is there.

All problems and losses take hours on two cores; the order of PROBLEMS is that of their worth.
`--only` names the parts: losses, divergence, second_order.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from equations import PROBLEMS as KNOWN
from equations import errors, objectives, second_order, training
from experiments import deqgan

NUM = 10
# Networks that are computed in one call: those of few points together, others one a device. So many
# try each factor.
FEW_POINTS = 100
FACTORS = 1.0, 0.3, 3.0
SEED = 0
# A network is lost if its error ends above this (Bullwinkel et al. 2022, Table 3).
LOST = 1e-5
PROBLEMS = ('exp', 'exp_linear', 'sho', 'hea', 'pos', 'nlo', 'wav', 'sir', 'ham', 'coo', 'ein')
PROBLEMS += ('bur', 'aca')
# Only of these are there results in float64 with Adam: they take seconds.
IN_FLOAT64 = 'exp', 'exp_linear'
# Rates that are drawn for the table of divergence, and how many networks.
RATES, MANY = (0.01, 0.1), 100
# Problems, points, units, residual blocks and steps of second-order methods.
SECOND_ORDER = (
    ('exp_linear', (100,), 20, 1, 'bfgs', 3000),
    ('sho', (100,), 20, 1, 'lm', 300),
    ('sho', (100,), 20, 1, 'lbfgs', 10_000),
    ('sho', (100,), 20, 1, 'bfgs', 10_000),
    ('nlo', (200,), 30, 1, 'bfgs', 10_000),
    ('pos', (16, 16), 20, 1, 'bfgs', 5000),
    ('hea', (16, 16), 20, 1, 'bfgs', 5000),
)


# Running


def config_of(problem: str) -> Any:
    """The published settings; those of another wrap are the same."""
    config = importlib.import_module(f'configs.deqgan.{problem.partition("_")[0]}').get_config()
    config.equation.name = problem
    return config


def runner(config: Any) -> tuple[training.Training, Any]:
    """How it is trained, and `run(networks, lr, lr_discriminator)` -> parameters, alarms, final
    residuals on the grid, of networks with rates of their own, over all devices.
    """
    made = deqgan.create_training(config)
    points = jnp.asarray(made.problem.grid(made.shape), made.network.dtype)

    def of_one(given):
        network, lr, lr_discriminator = given
        one = deqgan.with_rates(config, lr, lr_discriminator)
        state, _ = one.train(jax.random.fold_in(jax.random.key(SEED), network))
        residual = jnp.square(one.residual(state.params, points)).mean()
        return state.params, state.alarmed, residual

    mesh, split = Mesh(np.array(jax.devices()), ('networks',)), PartitionSpec('networks')

    def of_all(*given):
        return training.of_each(of_one, given, len(points))

    mapped = jax.shard_map(of_all, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    return made, jax.jit(mapped)


@dataclasses.dataclass
class Runs:
    """A program for some networks at once, which is compiled once for any rates."""

    made: training.Training
    program: Any
    at_once: int

    @classmethod
    def create(cls, config: Any) -> 'Runs':
        """Compiles it."""
        made, run = runner(config)
        at_once = 10 if np.prod(made.shape) <= FEW_POINTS else jax.device_count()
        shapes = [jax.ShapeDtypeStruct((at_once,), jnp.int32)]
        shapes += 2 * [jax.ShapeDtypeStruct((at_once,), made.network.dtype)]
        return cls(made, run.lower(*shapes).compile(), at_once)

    def __call__(self, num: int, lr: Any, lr_discriminator: Any) -> dict[str, Any]:
        """Errors, residuals, alarms and seconds of networks 0 to `num`, a multiple of `at_once`."""
        dtype = self.made.network.dtype
        rates = [np.broadcast_to(np.asarray(rate, dtype), num) for rate in (lr, lr_discriminator)]
        found, before, cpu = [], time.perf_counter(), time.process_time()
        for i in range(0, num, self.at_once):
            part = slice(i, i + self.at_once)
            given = np.arange(num, dtype=np.int32)[part], *(rate[part] for rate in rates)
            found.append(jax.device_get(self.program(*map(jnp.asarray, given))))
        seconds, cpu = time.perf_counter() - before, time.process_time() - cpu
        params, alarmed, residuals = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
        return {
            'errors': errors.mean_squared(self.made, params).tolist(),
            'residuals': residuals.astype(np.float64).tolist(),
            'alarmed': alarmed.tolist(),
            'seconds': seconds / num,
            'cpu_seconds': cpu / num,
        }


def of_loss(problem: str, loss: str, dtype: str) -> dict[str, Any]:
    """The rate that the residual chooses, and what NUM networks come to by it."""
    config = config_of(problem)
    config.training.loss, config.training.dtype = loss, dtype
    rates = np.array([config.optim.lr, config.discriminator.lr])
    runs = Runs.create(config)
    tried = {factor: runs(runs.at_once, *(factor * rates)) for factor in FACTORS}
    residuals = {
        factor: float(np.nan_to_num(np.median(found['residuals']), nan=np.inf))
        for factor, found in tried.items()
    }
    factor = min(residuals, key=residuals.get)
    found = tried[factor] if runs.at_once == NUM else runs(NUM, *(factor * rates))
    return {'factor': factor, 'tried': {str(k): v for k, v in residuals.items()}, **found}


def of_divergence(noise: bool) -> dict[str, Any]:
    """MANY networks on EXP, with rates drawn uniformly for both players."""
    config = config_of('exp')
    config.training.instance_noise = noise
    rates = np.random.default_rng(SEED).uniform(*RATES, size=(2, MANY))
    return Runs.create(config)(MANY, *rates)


def of_second_order(
    problem: str, shape: tuple, units: int, blocks: int, method: str, steps: int
) -> dict[str, Any]:
    """Three networks, one after another, in float64."""
    config = config_of(problem)
    config.training.loss, config.training.dtype = 'l2', 'float64'
    config.equation.points, config.training.batch_size = shape, int(np.prod(shape))
    config.solution.units, config.solution.blocks = units, blocks
    made = deqgan.create_training(config)
    points = jnp.asarray(made.problem.grid(shape))
    search = jax.jit(lambda key: second_order.minimise(made, key, method, steps))
    keys = [jax.random.fold_in(jax.random.key(SEED), i) for i in range(3)]
    search = search.lower(keys[0]).compile()
    rows = {name: [] for name in ('errors', 'residuals', 'steps', 'seconds', 'cpu_seconds')}
    for key in keys:
        before, cpu = time.perf_counter(), time.process_time()
        found = jax.block_until_ready(search(key))
        rows['seconds'].append(time.perf_counter() - before)
        rows['cpu_seconds'].append(time.process_time() - cpu)
        rows['steps'].append(int(found.steps))
        rows['residuals'].append(float(jnp.square(made.residual(found.params, points)).mean()))
        one = jax.tree.map(lambda array: array[None], found.params)
        rows['errors'] += errors.mean_squared(made, one).tolist()
    return rows


# What there is to run


@dataclasses.dataclass(frozen=True)
class Job:
    """A line of the results: its name, and how it is made."""

    part: str
    name: tuple
    run: Any
    dtype: str

    @property
    def key(self) -> str:
        """The name as text."""
        return '/'.join(map(str, (self.part, *self.name)))


def jobs(problems: list[str]) -> Iterator[Job]:
    """All that are known of these problems."""
    for problem in problems:
        dtypes = ('float32', 'float64') if problem in IN_FLOAT64 else ('float32',)
        for dtype in dtypes:
            for loss in objectives.LOSSES:
                name = (problem, loss, dtype)
                yield Job('losses', name, lambda name=name: of_loss(*name), dtype)
        if problem == 'exp':
            for noise in (False, True):
                yield Job(
                    'divergence', (noise,), lambda noise=noise: of_divergence(noise), 'float32'
                )
        for row in SECOND_ORDER:
            if row[0] == problem:
                yield Job('second_order', row, lambda row=row: of_second_order(*row), 'float64')


def read(path: pathlib.Path) -> dict[str, dict]:
    """What is there, by the keys of jobs."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row['key']: row for row in map(json.loads, lines)}


# Tables


def scientific(value: float) -> str:
    """Two digits."""
    return f'{value:.1e}' if np.isfinite(value) else 'not finite'


def losses_table(found: dict[str, dict]) -> None:
    """Errors by problem and loss."""
    print(
        '\n| problem | loss | numbers | rate | best | median | worst | above 1e-5 | CPU s a seed |'
    )
    print('| --- ' * 9 + '|')
    for job in jobs(list(PROBLEMS)):
        if job.part != 'losses' or job.key not in found:
            continue
        row, (problem, loss, dtype) = found[job.key], job.name
        values = np.nan_to_num(np.array(row['errors']), nan=np.inf)
        cells = map(scientific, (values.min(), np.median(values), values.max()))
        print(
            f'| {problem} | `{loss}` | {dtype} | x {row["factor"]:g} | {" | ".join(cells)} | '
            f'{(values > LOST).sum()} of {len(values)} | {row["cpu_seconds"]:.2g} |'
        )


def divergence_table(found: dict[str, dict]) -> None:
    """Shares of networks that are lost, with and without monitoring."""
    print('\n| instance noise | lost | alarmed | lost of those without alarm | alarmed in vain |')
    print('| --- ' * 5 + '|')
    for noise in (False, True):
        row = found.get(f'divergence/{noise}')
        if row is None:
            continue
        is_lost = ~(np.array(row['errors']) <= LOST)
        alarmed = np.array(row['alarmed'])
        print(
            f'| {"yes" if noise else "no"} | {is_lost.sum()} of {len(is_lost)} | {alarmed.sum()} | '
            f'{(is_lost & ~alarmed).sum()} of {(~alarmed).sum()} | {(alarmed & ~is_lost).sum()} |'
        )


def second_order_table(found: dict[str, dict]) -> None:
    """Errors and seconds of three networks each."""
    print('\n| problem | method | points | network | steps | errors | residuals | CPU s |')
    print('| --- ' * 8 + '|')
    for job in jobs(list(PROBLEMS)):
        if job.part != 'second_order' or job.key not in found:
            continue
        row, (problem, shape, units, blocks, method, _) = found[job.key], job.name
        print(
            f'| {problem} | `{method}` | {" x ".join(map(str, shape))} | {units} x {blocks} | '
            f'{", ".join(map(str, row["steps"]))} | {", ".join(map(scientific, row["errors"]))} | '
            f'{", ".join(map(scientific, row["residuals"]))} | '
            f'{", ".join(f"{s:.0f}" for s in row["cpu_seconds"])} |'
        )


def main() -> None:
    """Computes what is missing of the problems that are named, and prints all that is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--results', type=pathlib.Path, required=True)
    parser.add_argument('--problems', nargs='*', choices=KNOWN, default=list(PROBLEMS))
    parser.add_argument('--only', nargs='*', default=['losses', 'divergence', 'second_order'])
    parser.add_argument('--losses', nargs='*', choices=objectives.LOSSES)
    args = parser.parse_args()
    jax.config.update('jax_num_cpu_devices', 2)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    for job in jobs(args.problems):
        of_other_loss = args.losses and job.part == 'losses' and job.name[1] not in args.losses
        if job.part not in args.only or of_other_loss or job.key in read(args.results):
            continue
        with jax.enable_x64(job.dtype == 'float64'):
            row = {'key': job.key, **job.run()}
        with args.results.open('a') as file:
            file.write(json.dumps(row) + '\n')
    found = read(args.results)
    losses_table(found)
    divergence_table(found)
    second_order_table(found)


if __name__ == '__main__':
    main()

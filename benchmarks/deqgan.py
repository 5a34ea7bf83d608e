"""The losses of DEQGAN's comparison on equal terms: the same networks, points, noise, schedule and
number of steps for each, with a rate of its own, which the final residual has chosen.

    python -m benchmarks.deqgan --results runs/deqgan.jsonl [--problems exp sho ...] > tables.md

Of a problem and a loss, ten networks are trained at the published rates, of the network and of the
discriminator with it, and the first two (of EXP all ten) at FACTORS times these. That of least
median of the final mean squared residual, which anybody has, is then taken for all ten. Errors are
those of the final iterate, on a grid four times as fine as that of training that shares no point
with it.

Each two networks (of EXP ten) are a line of the file, and what is there is not computed again;
tables are made of all that is there, and say which factors were tried so far. All problems and
losses take ten to fifteen hours on two cores; the order of PROBLEMS is that of their worth.
`--networks 2 --factors 1` gives a first look at the long ones, which a later run without these goes
on from.
"""

import argparse
import functools
import importlib
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from equations import errors, objectives, second_order, training
from experiments import deqgan

PARTS = 'losses', 'as_published', 'divergence', 'second_order'
NUM = 10
# Networks that are computed in one call: those of few points together, others one a device. So many
# try each factor.
FEW_POINTS = 100
FACTORS = 1.0, 0.3, 0.1, 3.0
SEED = 0
# A network is lost if its error ends above this (Bullwinkel et al. 2022, Table 3).
LOST = 1e-5
PROBLEMS = ('exp', 'exp_linear', 'sho', 'hea', 'pos', 'nlo', 'wav', 'sir', 'ham', 'coo', 'ein')
PROBLEMS += ('bur', 'aca')
# Only of these are there results in float64 with Adam: they take seconds.
IN_FLOAT64 = 'exp', 'exp_linear'
# Of Adam for the published fixed losses, whatever the problem: their own settings were not read.
FIXED_RATE, FIXED_BETAS = 1e-3, (0.0, 0.9)
# Rates that are drawn for the table of divergence, and how many networks.
RATES, MANY = (0.01, 0.1), 100
# Problems, points, units, residual blocks and steps of second-order methods.
SECOND_ORDER = (
    ('exp_linear', (100,), 20, 1, 'bfgs', 3000),
    ('sho', (100,), 10, 1, 'lm', 400),
    ('sho', (100,), 20, 1, 'lbfgs', 10_000),
    ('sho', (100,), 20, 1, 'bfgs', 10_000),
    ('nlo', (200,), 30, 1, 'bfgs', 10_000),
    ('pos', (16, 16), 20, 1, 'bfgs', 5000),
    ('hea', (16, 16), 20, 1, 'bfgs', 5000),
    ('wav', (16, 16), 20, 1, 'bfgs', 5000),
    ('sir', (200,), 30, 1, 'bfgs', 10_000),
    ('ham', (200,), 30, 1, 'bfgs', 10_000),
    ('coo', (200,), 30, 1, 'bfgs', 10_000),
    ('ein', (200,), 30, 1, 'bfgs', 10_000),
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


class Results:
    """The lines of a file, by their keys; what is missing is computed and appended."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = {row['key']: row for row in map(json.loads, lines)}

    def keep(self, key: str, make: Callable[[], dict]) -> dict:
        """The line of a key."""
        if key not in self.rows:
            self.rows[key] = {'key': key, **make()}
            with self._path.open('a') as file:
                file.write(json.dumps(self.rows[key]) + '\n')
        return self.rows[key]


class Runs:
    """Networks of a config at some rates, by a program that is compiled when it is first needed."""

    def __init__(self, config: Any):
        self._config = config
        self.at_once = 10 if np.prod(config.equation.points) <= FEW_POINTS else jax.device_count()

    @functools.cached_property
    def _compiled(self) -> tuple[training.Training, Any]:
        made, run = runner(self._config)
        dtype = made.network.dtype
        shapes = [jax.ShapeDtypeStruct((self.at_once,), t) for t in (jnp.int32, dtype, dtype)]
        return made, run.lower(*shapes).compile()

    def __call__(self, first: int, *rates: np.ndarray) -> dict[str, Any]:
        """Errors, residuals, alarms and seconds of networks `first` to `first + at_once`, each with
        its rates."""
        made, program = self._compiled
        networks = jnp.arange(first, first + self.at_once, dtype=jnp.int32)
        given = (jnp.asarray(rate, made.network.dtype) for rate in rates)
        before, cpu = time.perf_counter(), time.process_time()
        params, alarmed, residuals = jax.device_get(program(networks, *given))
        seconds, cpu = time.perf_counter() - before, time.process_time() - cpu
        return {
            'errors': errors.mean_squared(made, params).tolist(),
            'residuals': residuals.astype(np.float64).tolist(),
            'alarmed': alarmed.tolist(),
            'seconds': seconds / self.at_once,
            'cpu_seconds': cpu / self.at_once,
        }


def run_loss(
    results: Results,
    name: tuple[str, str, str],
    num: int = NUM,
    factors: Sequence[float] = FACTORS,
) -> None:
    """So many networks at the first of the factors of published rates, some at the others, and all
    at the chosen one. The name is that of problem, loss and dtype."""
    problem, loss, dtype = name
    config = config_of(problem)
    config.training.loss, config.training.dtype = loss, dtype
    published = config.optim.lr, config.discriminator.lr
    runs = Runs(config)

    def some(factor, first):
        rates = [np.full(runs.at_once, factor * rate) for rate in published]
        key = f'{of_factor(*name, factor)}/{first}'
        results.keep(key, lambda: runs(first, *rates))

    def all_at(factor):
        for first in range(0, num, runs.at_once):
            some(factor, first)

    all_at(factors[0])
    for factor in factors[1:]:
        some(factor, 0)
    found = tried(results.rows, *name)
    all_at(min(found, key=found.get))


def of_factor(problem: str, loss: str, dtype: str, factor: float) -> str:
    """What the keys of such networks begin with."""
    return f'losses/{problem}/{loss}/{dtype}/x{factor:g}'


def tried(rows: dict[str, dict], *name: str) -> dict[float, float]:
    """The factors that were tried, and the median residual of the first networks at each."""
    found = {factor: rows.get(f'{of_factor(*name, factor)}/0') for factor in FACTORS}
    return {
        factor: float(np.nan_to_num(np.median(row['residuals']), nan=np.inf))
        for factor, row in found.items()
        if row is not None
    }


def run_as_published(results: Results, problem: str) -> None:
    """NUM networks by the fixed losses at the only rate that they had in the publication."""
    for loss in ('l2', 'l1', 'huber'):
        config = config_of(problem)
        config.training.loss = loss
        config.optim.beta1, config.optim.beta2 = FIXED_BETAS
        runs = Runs(config)
        for first in range(0, NUM, runs.at_once):
            rates = [np.full(runs.at_once, FIXED_RATE)] * 2
            key = f'as_published/{problem}/{loss}/{first}'
            results.keep(key, lambda first=first, rates=rates, runs=runs: runs(first, *rates))


def run_divergence(results: Results) -> None:
    """MANY networks on EXP, with rates drawn uniformly for both players."""
    rates = np.random.default_rng(SEED).uniform(*RATES, size=(2, MANY))
    for noise in (False, True):
        config = config_of('exp')
        config.training.instance_noise = noise
        runs = Runs(config)
        for first in range(0, MANY, runs.at_once):
            of_these = rates[:, first : first + runs.at_once]
            key = f'divergence/{noise}/{first}'
            results.keep(key, lambda first=first, rates=of_these, runs=runs: runs(first, *rates))


def of_second_order(
    problem: str, shape: tuple, units: int, blocks: int, method: str, steps: int
) -> dict[str, Any]:
    """Three networks, one after another, in float64."""
    config = config_of(problem)
    config.training.loss, config.training.dtype = 'l2', 'float64'
    config.equation.points, config.training.batch_size = shape, int(np.prod(shape))
    config.solution.units, config.solution.blocks = units, blocks
    made = deqgan.create_training(config)
    grids = {'residuals': made.problem.grid(shape), 'between': made.problem.finer_grid(shape)}
    search = jax.jit(lambda key: second_order.minimise(made, key, method, steps))
    keys = [jax.random.fold_in(jax.random.key(SEED), i) for i in range(3)]
    search = search.lower(keys[0]).compile()
    rows = {name: [] for name in ('errors', *grids, 'steps', 'seconds', 'cpu_seconds')}
    for key in keys:
        before, cpu = time.perf_counter(), time.process_time()
        found = jax.block_until_ready(search(key))
        rows['seconds'].append(time.perf_counter() - before)
        rows['cpu_seconds'].append(time.process_time() - cpu)
        rows['steps'].append(int(found.steps))
        for name, points in grids.items():
            residual = made.residual(found.params, jnp.asarray(points))
            rows[name].append(float(jnp.square(residual).mean()))
        one = jax.tree.map(lambda array: array[None], found.params)
        rows['errors'] += errors.mean_squared(made, one).tolist()
    return rows


def second_order_key(row: tuple) -> str:
    """The key of a row of SECOND_ORDER."""
    return '/'.join(map(str, ('second_order', *row)))


# Tables


def scientific(value: float) -> str:
    """Two digits."""
    return f'{value:.1e}' if np.isfinite(value) else 'not finite'


def together(parts: list[dict]) -> dict[str, np.ndarray]:
    """The arrays of several lines one after another; CPU seconds are means."""
    found = {name: np.concatenate([part[name] for part in parts]) for name in ('errors', 'alarmed')}
    return {**found, 'cpu_seconds': np.mean([part['cpu_seconds'] for part in parts])}


def parts_of(rows: dict[str, dict], key: str) -> list[dict]:
    """The lines of networks whose keys begin so."""
    return [row for name, row in rows.items() if name.rpartition('/')[0] == key]


def losses_table(rows: dict[str, dict]) -> None:
    """Errors by problem and loss."""
    print(
        '\n| problem | loss | numbers | rate | best | median | worst | above 1e-5 | CPU s a seed |'
    )
    print('| --- ' * 9 + '|')
    for name in itertools.product(PROBLEMS, objectives.LOSSES, ('float32', 'float64')):
        of_factors = tried(rows, *name)
        if not of_factors:
            continue
        factor = min(of_factors, key=of_factors.get)
        found = together(parts_of(rows, of_factor(*name, factor)))
        problem, loss, dtype = name
        values = np.nan_to_num(found['errors'], nan=np.inf)
        cells = map(scientific, (values.min(), np.median(values), values.max()))
        seconds = float(f'{found["cpu_seconds"]:.2g}')
        told = f'{factor:g} of {", ".join(f"{known:g}" for known in sorted(of_factors))}'
        print(
            f'| {problem} | `{loss}` | {dtype} | {told} | {" | ".join(cells)} | '
            f'{(values > LOST).sum()} of {len(values)} | {seconds:g} |'
        )


def as_published_table(rows: dict[str, dict]) -> None:
    """Errors of the fixed losses at the published rate."""
    print('\n| problem | loss | best | median | worst |')
    print('| --- ' * 5 + '|')
    for problem, loss in itertools.product(PROBLEMS, ('l2', 'l1', 'huber')):
        parts = parts_of(rows, f'as_published/{problem}/{loss}')
        if parts:
            values = np.nan_to_num(together(parts)['errors'], nan=np.inf)
            cells = map(scientific, (values.min(), np.median(values), values.max()))
            print(f'| {problem} | `{loss}` | {" | ".join(cells)} |')


def divergence_table(rows: dict[str, dict]) -> None:
    """Shares of networks that are lost, with and without monitoring."""
    print('\n| instance noise | lost | alarmed | lost of those without alarm | alarmed in vain |')
    print('| --- ' * 5 + '|')
    for noise in (False, True):
        parts = parts_of(rows, f'divergence/{noise}')
        if not parts:
            continue
        found = together(parts)
        is_lost, alarmed = ~(found['errors'] <= LOST), found['alarmed']
        print(
            f'| {"yes" if noise else "no"} | {is_lost.sum()} of {len(is_lost)} | {alarmed.sum()} | '
            f'{(is_lost & ~alarmed).sum()} of {(~alarmed).sum()} | {(alarmed & ~is_lost).sum()} |'
        )


def second_order_table(rows: dict[str, dict]) -> None:
    """Errors and seconds of three networks each; residuals on the grid, and between its points."""
    heads = 'problem', 'method', 'points', 'network', 'steps', 'errors', 'residuals', 'between'
    print(f'\n| {" | ".join(heads)} | CPU s |')
    print('| --- ' * 9 + '|')
    for told in SECOND_ORDER:
        row = rows.get(second_order_key(told))
        if row is None:
            continue
        problem, shape, units, blocks, method, _ = told
        print(
            f'| {problem} | `{method}` | {" x ".join(map(str, shape))} | {units} x {blocks} | '
            f'{", ".join(map(str, row["steps"]))} | {", ".join(map(scientific, row["errors"]))} | '
            f'{", ".join(map(scientific, row["residuals"]))} | '
            f'{", ".join(map(scientific, row["between"]))} | '
            f'{", ".join(f"{s:.0f}" for s in row["cpu_seconds"])} |'
        )


def main() -> None:
    """Computes what is missing of what is named, and prints all that is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--results', type=pathlib.Path, required=True)
    parser.add_argument('--problems', nargs='*', choices=PROBLEMS, default=PROBLEMS)
    parser.add_argument('--losses', nargs='*', choices=objectives.LOSSES, default=objectives.LOSSES)
    parser.add_argument('--dtypes', nargs='*', default=('float32', 'float64'))
    parser.add_argument('--only', nargs='*', choices=PARTS, default=PARTS)
    parser.add_argument('--networks', type=int, default=NUM, help='of a problem, a loss and a rate')
    parser.add_argument('--factors', nargs='+', type=float, choices=FACTORS, default=FACTORS)
    args = parser.parse_args()
    jax.config.update('jax_num_cpu_devices', 2)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    results = Results(args.results)
    if 'losses' in args.only:
        for problem, loss, dtype in itertools.product(args.problems, args.losses, args.dtypes):
            if dtype == 'float32' or problem in IN_FLOAT64:
                with jax.enable_x64(dtype == 'float64'):
                    run_loss(results, (problem, loss, dtype), args.networks, args.factors)
    if 'as_published' in args.only:
        for problem in args.problems:
            run_as_published(results, problem)
    if 'divergence' in args.only and 'exp' in args.problems:
        run_divergence(results)
    if 'second_order' in args.only:
        for row in SECOND_ORDER:
            if row[0] in args.problems:
                with jax.enable_x64(True):
                    results.keep(second_order_key(row), lambda row=row: of_second_order(*row))
    losses_table(results.rows)
    as_published_table(results.rows)
    divergence_table(results.rows)
    second_order_table(results.rows)


if __name__ == '__main__':
    main()

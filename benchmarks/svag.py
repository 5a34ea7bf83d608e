"""Whether SGD is what its stochastic differential equation says: SVAG, noisy gradients, the SDE.

    python -m benchmarks.svag [quadratic] [digits] [scaling] [--keep DIRECTORY] > tables.md

Three tables, in under ten minutes on two cores that have nothing else to do, most of it `digits`:

quadratic   moments of a spring with noise against closed forms
digits      a scale-invariant classifier of 1,024 digits of 8x8 pixels, by each process
scaling     SGD on the same, with the rate in proportion to the batch

Numbers are means over the second half of each run, and over seeds, with standard errors over seeds.
What is in the directory is not computed again: each row is kept there, with its seconds.
"""

import argparse
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from benchmarks import machine
from datasets import loading, quantization
from gradient_noise import chains, equilibrium, sde, weights
from gradient_noise.chains import SGD, SVAG, NoisyGradient
from gradient_noise.equilibrium import Statistics
from models.normalised_mlp import NormalisedMLP
from training import Params

NUM_TRAIN, NUM_TEST = 1024, 773
SEEDS = 24
WEIGHT_DECAY = 5e-3

# Of the table `digits`.
RATE, BATCH_SIZE = 0.8, 16
STEPS, RECORDS = 800, 160
SDE_STEPS = 4

# Of the table `scaling`: the rate of a batch of 16, what rate times steps is, and how many records
# there are if there are as many steps.
SCALED_RATE, DURATION, SCALED_RECORDS = 0.4, 640, 200
BATCH_SIZES = 4, 8, 16, 32, 64, 128, 256, 512
CLOSE = 2**0.5  # the factor C

# Of the table `quadratic`.
NUM_CHAINS = 400_000
H, SPRING_RATE, TIME = 1.0, 0.5, 2.0
LEVELS = 1, 2, 4, 8, 16


# Springs


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def spring(substeps: int, num_steps: int, is_multiplicative: bool) -> Float[Array, 'chains']:
    """Chains of SVAG for h x^2 / 2, after as many steps of SGD; noise is centred exponential, or
    x times a normal number, and x begins at 0, or at 1.
    """
    pair = weights.svag_pair(substeps)

    def step(i, x):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(substeps), i))
        if is_multiplicative:
            first, second = ((H + jax.random.normal(key, x.shape)) * x for key in keys)
        else:
            first, second = (H * x + jax.random.exponential(key, x.shape) - 1 for key in keys)
        return x - SPRING_RATE / substeps * (pair.first * first + pair.second * second)

    x = jnp.full(NUM_CHAINS, float(is_multiplicative))
    return jax.lax.fori_loop(0, num_steps * substeps, step, x)


def quadratic() -> None:
    """Prints the first table: each cell the closed form, and what the chains have."""
    sde_variance = SPRING_RATE / (2 * H)
    print('| l | variance over that of the SDE: law, chains | third cumulant | E x^2 at time 2 |')
    print('| --- | --- | --- | --- |')
    for substeps in LEVELS:
        x = np.asarray(spring(substeps, 24, False), np.float64)
        centred, pull = x - x.mean(), 1 - SPRING_RATE * H / substeps
        third = -((SPRING_RATE / substeps) ** 3) * (3 * substeps - 1) / (1 - pull**3)
        growth = pull**2 + SPRING_RATE**2 / substeps
        y = np.asarray(spring(substeps, round(TIME / SPRING_RATE), True), np.float64)
        cells = [
            (1 / (1 - SPRING_RATE * H / (2 * substeps)), centred**2 / sde_variance),
            (third, centred**3),
            (growth ** (TIME / SPRING_RATE * substeps), y**2),
        ]
        shown = [f'{law:.4f}, {plus_minus(values, 4)}' for law, values in cells]
        print(f'| {substeps} | ' + ' | '.join(shown) + ' |', flush=True)
    of_sde = np.exp((-2 * H + SPRING_RATE) * TIME)
    print(f'| SDE | 1 | 0 | {of_sde:.4f} |')


# Digits


class Record(NamedTuple):
    """What is found of parameters."""

    statistics: Statistics
    loss: Any
    accuracy: Any


@functools.cache
def digits() -> tuple[chains.Examples, chains.Examples]:
    """Images and labels, for training and for tests."""
    share = NUM_TEST / (NUM_TRAIN + NUM_TEST)
    found = []
    for split, num in (('train', NUM_TRAIN), ('test', NUM_TEST)):
        batch = loading.load('digits', split, (8, 8), 1, share).gather(np.arange(num))
        # Programs that are being traced ask for them too.
        with jax.ensure_compile_time_eval():
            x = quantization.to_float(jnp.asarray(batch['image']), centered=True)
            found.append((x, jnp.asarray(batch['label'])))
    return tuple(found)


NETWORK = NormalisedMLP(width=32, num_layers=2)


def logits(params: Params, images: Array) -> Array:
    """Of images, a row each."""
    return NETWORK.apply({'params': params}, images)


def loss(params: Params, example: Any) -> Array:
    """The cross-entropy of one digit, in nats."""
    image, label = example
    return -jax.nn.log_softmax(logits(params, image[None])[0])[label]


def record(batch_size: int, params: Params) -> Record:
    """Exact statistics over all training digits, their loss, and the share of test digits that are
    told right."""
    train, (images, labels) = digits()
    return Record(
        equilibrium.measured(loss, train, batch_size, params),
        jax.vmap(loss, (None, 0))(params, train).mean(),
        (logits(params, images).argmax(1) == labels).mean(),
    )


def by_chain(chain: chains.Chain, rate: float, num_records: int, every: int) -> Callable:
    """From a key to the records of a run."""

    def of_key(key):
        init, run = jax.random.split(key)
        measure = functools.partial(record, chain.batch_size)
        return chains.run(
            *(chain, loss, digits()[0], rate, WEIGHT_DECAY, initial(init), run),
            *(num_records, every, measure),
        )[1]

    return of_key


def by_diffrax(key: Array) -> Record:
    """The records of a solution of the SDE."""
    init, run = jax.random.split(key)
    solution = sde.solve(
        *(loss, digits()[0], RATE, WEIGHT_DECAY, BATCH_SIZE, initial(init), run),
        *(SDE_STEPS, RECORDS, STEPS // RECORDS),
    )
    return jax.lax.map(functools.partial(record, BATCH_SIZE), solution)


def initial(key: Array) -> Params:
    """The parameters before the first step."""
    return NETWORK.init(key, digits()[0][0][:1])['params']


class Kept(NamedTuple):
    """The records of a row, [seeds], and the seconds of all cores that they took."""

    record: Record
    seconds: float


def kept(keep: pathlib.Path | None, name: str, of_key: Callable, num: int) -> Kept:
    """What `over_seeds` finds, or found before."""
    path = keep and keep / f'{name.replace(", ", "_").replace(" ", "")}_{num}.npz'
    if path and path.exists():
        R, G, N, loss_, accuracy, seconds = np.load(path)['found']
        return Kept(Record(Statistics(R, G, N), loss_, accuracy), seconds[0])
    before = time.process_time()
    found = over_seeds(of_key, num)
    seconds = time.process_time() - before
    if path:
        rows = *found.statistics, found.loss, found.accuracy, np.full(num, seconds)
        np.savez(path, found=np.stack(rows))
    return Kept(found, seconds)


def over_seeds(of_key: Callable, num: int) -> Record:
    """The means of the second half of the records, [seeds]; devices share the seeds."""
    mesh = Mesh(np.array(jax.devices()), ('seeds',))
    spec = PartitionSpec('seeds')
    # Nothing passes between devices, so that none has to wait for another.
    program = jax.shard_map(
        jax.vmap(of_key), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
    found = jax.jit(program)(jax.random.split(jax.random.key(0), num))

    def mean_at_rest(records):
        return np.asarray(records, np.float64)[:, records.shape[1] // 2 :].mean(1)

    return jax.tree.map(mean_at_rest, found)


class Row(NamedTuple):
    """A process of the table: `of_key` makes its records, and `substeps` is l, or m."""

    name: str
    of_key: Callable
    substeps: float


def compare_processes(num_seeds: int, keep: pathlib.Path | None) -> None:
    """Prints the second table, and what follows from it."""
    every = STEPS // RECORDS

    def row(name, chain):
        return Row(name, by_chain(chain, RATE, RECORDS, every), chain.substeps)

    rows = [
        row('SGD', SGD(BATCH_SIZE)),
        *[row(f'SVAG, l = {n}', SVAG(BATCH_SIZE, n)) for n in (4, 16, 64)],
        row('noisy gradient descent', NoisyGradient(BATCH_SIZE)),
        *[row(f'SDE, m = {m}', NoisyGradient(BATCH_SIZE, m)) for m in (SDE_STEPS, 2 * SDE_STEPS)],
        Row(f'SDE, diffrax, m = {SDE_STEPS}', by_diffrax, SDE_STEPS),
    ]
    print(
        '| process | R | training loss | test accuracy | N / G '
        '| (2 lam - eta lam^2 / l) R / eta | G / l + N | ratio | CPU s |'
    )
    print('| --- ' * 9 + '|')
    found = {}
    for name, of_key, substeps in rows:
        found[name], seconds = kept(keep, name, of_key, num_seeds)
        print(f'| {name} | {cells(found[name], RATE, substeps)} | {seconds:.0f} |', flush=True)
    print()
    conclusions(found)


def cells(found: Record, rate: float, substeps: float) -> str:
    """R, loss, accuracy, N / G, and both sides of the balance of lengths with their ratio."""
    R, G, N = found.statistics
    drift = equilibrium.drift_of_length(R, rate, WEIGHT_DECAY, substeps)
    growth = equilibrium.growth_of_length(G, N, substeps)
    return ' | '.join(
        [
            plus_minus(R, 1),
            plus_minus(found.loss, 3),
            plus_minus(found.accuracy, 4),
            '{:.2f} ± {:.2f}'.format(*ratio(N, G)),
            f'{drift.mean():.3f}',
            f'{growth.mean():.3f}',
            '{:.3f} ± {:.3f}'.format(*ratio(drift, growth)),
        ]
    )


def conclusions(found: dict[str, Record]) -> None:
    """Prints what the processes are against the SDE, which is extrapolated to m = infinity."""
    coarse, fine = (found[f'SDE, m = {m}'] for m in (SDE_STEPS, 2 * SDE_STEPS))
    # The error of Euler-Maruyama's averages is of order 1 / m.
    limit = 2 * fine.statistics.R - coarse.statistics.R
    limit_loss = 2 * fine.loss - coarse.loss
    print(
        '| process | R over that of the SDE with 2 m steps | R over that with m = infinity '
        '| loss less that of the SDE with 2 m steps, in standard errors |'
    )
    print('| --- ' * 4 + '|')
    for name, of_process in found.items():
        R = of_process.statistics.R
        of_fine, of_limit = (independent_ratio(R, other) for other in (fine.statistics.R, limit))
        gap = (of_process.loss.mean() - fine.loss.mean()) / np.hypot(
            standard_error(of_process.loss), standard_error(fine.loss)
        )
        told = '' if of_process is fine else f'{gap:+.1f}'
        print(
            '| {} | {:.3f} ± {:.3f} | {:.3f} ± {:.3f} | {} |'.format(
                name, *of_fine, *of_limit, told
            )
        )
    print(f'\nm = infinity: R {plus_minus(limit, 1)}, training loss {plus_minus(limit_loss, 3)}')


# The linear scaling rule


def scale(num_seeds: int, keep: pathlib.Path | None) -> None:
    """Prints the third table, and the pairs of batches that are close against their bound."""
    print('| B | eta | steps | N / G | R | training loss | test accuracy | ratio | largest k |')
    print('| --- ' * 9 + '|')
    found = {}
    for size in BATCH_SIZES:
        rate = SCALED_RATE * size / 16
        steps = round(DURATION / rate)
        records = min(steps, SCALED_RECORDS)
        of_key = by_chain(SGD(size), rate, records, steps // records)
        found[size], _ = kept(keep, f'B={size}', of_key, num_seeds)
        R, loss_, accuracy, of_gradients, _, _, balance = cells(found[size], rate, 1).split(' | ')
        _, G, N = (mean.mean() for mean in found[size].statistics)
        most = equilibrium.largest_scaling(G, N, CLOSE)
        columns = size, f'{rate:g}', steps, of_gradients, R, loss_, accuracy, balance, f'{most:.1f}'
        print('| ' + ' | '.join(map(str, columns)) + ' |', flush=True)
    print()
    check_bounds(found)


def check_bounds(found: dict[int, Record]) -> None:
    """Prints where the SDE's condition fails, where the rule breaks, and the pairs against the
    bound."""
    means = {size: Statistics(*(s.mean() for s in f.statistics)) for size, f in found.items()}
    lengths = {size: of_batch.R for size, of_batch in means.items()}
    most = CLOSE * lengths[BATCH_SIZES[0]]
    without = [b for b, s in means.items() if not equilibrium.may_be_sde(s.G, s.N, CLOSE)]
    broken = [size for size, length in lengths.items() if length > most]
    print(
        f'N / G first below {equilibrium.least_noise(CLOSE):.0f}: B = {min(without, default=None)}'
    )
    print(f'R first above sqrt(2) of that at B = {BATCH_SIZES[0]}: B = {min(broken, default=None)}')
    pairs, violated = [], []
    for small, a in means.items():
        for large in (size for size in means if size > small):
            k, b = large / small, means[large]
            # The rule keeps the noise of a time, which is k N.
            if is_close(a.R, b.R) and is_close(a.G, b.G) and is_close(a.N, k * b.N):
                pairs.append((small, large))
                if k > equilibrium.largest_scaling(a.G, a.N, CLOSE):
                    violated.append((small, large))
    print(f'pairs (B, k B) whose R, G and N are close: {pairs}; with k above the bound: {violated}')


def is_close(a: float, b: float) -> bool:
    """Whether two numbers are within the factor."""
    return max(a / b, b / a) <= CLOSE


# Errors


def standard_error(values: np.ndarray) -> float:
    """Of the mean of independent values."""
    return values.std(ddof=1) / len(values) ** 0.5


def plus_minus(values: np.ndarray, digits: int) -> str:
    """The mean with its standard error."""
    return f'{values.mean():.{digits}f} ± {standard_error(values):.{digits}f}'


def ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """The ratio of the means of two numbers of the same seeds, and its standard error."""
    value = above.mean() / below.mean()
    return value, standard_error(above - value * below) / abs(below.mean())


def independent_ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """The ratio of two means, each with noise of its own."""
    value = above.mean() / below.mean()
    relative = [standard_error(values) / values.mean() for values in (above, below)]
    return value, value * np.hypot(*relative)


TABLES = {
    'quadratic': lambda *_: quadratic(),
    'digits': compare_processes,
    'scaling': scale,
}


def main() -> None:
    """Prints the tables that are asked for, all by default."""
    jax.config.update('jax_num_cpu_devices', 2)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('tables', nargs='*', choices=[*TABLES, []], default=list(TABLES))
    parser.add_argument('--seeds', type=int, default=SEEDS)
    parser.add_argument('--keep', type=pathlib.Path)
    args = parser.parse_args()
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    print(f'{machine.name()}, {args.seeds} seeds')
    for name in args.tables:
        print(f'\n## {name}\n', flush=True)
        TABLES[name](args.seeds, args.keep)


if __name__ == '__main__':
    main()

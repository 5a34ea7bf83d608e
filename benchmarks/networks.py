"""Training steps and forward passes of the published networks, ours against their formulation.

    python -m benchmarks.networks [--repeats 5] [--only 'VE, nf = 32' ...]

The cases are the CIFAR-10 networks, the demo's on digits, and latent score models of digits.

Each network is compiled twice with the same parameters: as it is here, and as the published code
formulates it (published_network.py); their outputs are compared first. Then they take turns, so
that the ratios hold on a busy machine too. A training step is all of it: augmentation, loss,
gradient, Adam, moving average. Ours runs as main.py runs it, every core a device and half of a
batch on each of two, and on one device; the published one on one device, whose threads use all
cores.

Shares are of the rate of a 2048^3 product in the same process. The operations of a network are
those that XLA counts in its published forward pass, and three times that many in a training step.

Latent score models have no published formulation: of them there is a training step, autoencoder and
prior together, whose operations are those of its trace (analysis/cost.py).
"""

import argparse
import contextlib
import functools
import importlib
import statistics
import time
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from analysis import cost
from benchmarks import machine, published_network
from devices import sharding
from experiments import kinds

WIDE = {'nf': 128}, 4
NARROW = {'nf': 32}, 16
VE, VP = 'configs.ve.cifar10_ncsnpp_continuous', 'configs.vp.cifar10_ddpmpp_continuous'
MNIST = 'configs.vp.mnist_ddpmpp'
# Name: module of the config, what changes in config.model, batch.
CASES = {
    'NCSN++ (VE), nf = 32, batch 16': (VE, *NARROW),
    'DDPM++ (VP), nf = 32, batch 16': (VP, *NARROW),
    'NCSN++ (VE), nf = 128, batch 4': (VE, *WIDE),
    'DDPM++ (VP), nf = 128, batch 4': (VP, *WIDE),
    'MNIST (VP), nf = 16, batch 32': (MNIST, {}, 32),
}
LATENT_CASES = {
    'LSGM of digits, flat, batch 128': ('configs.lsgm.small.joint', {}, 128),
    'LSGM of digits, convolutional, batch 64': ('configs.lsgm.small.convolutional', {}, 64),
}


class Program(NamedTuple):
    """A compiled program without arguments, the seconds it took, its temporary bytes, its text, and
    the operations that XLA counts before it compiles.
    """

    run: object
    compile_seconds: float
    temporaries: int
    text: str
    flops: float


def compiled(function, *args, repeated: bool = False) -> Program:
    """The program of a function of these arguments.

    One that is `repeated` hands its first result to its next run, in place.
    """
    start = time.perf_counter()
    # A new function each time: JAX keeps what it traced, and in another formulation it is another.
    traced = jax.jit(lambda *args: function(*args), donate_argnums=0 if repeated else ())
    lowered = traced.lower(*args)
    program = lowered.compile()
    seconds = time.perf_counter() - start
    flops = lowered.cost_analysis()['flops']
    temporaries = program.memory_analysis().temp_size_in_bytes
    run = repeating(program, *args) if repeated else functools.partial(program, *args)
    return Program(run, seconds, temporaries, program.as_text(), flops)


def repeating(step, state, batch):
    """Steps on one batch, each from the state that the last one left."""

    def run():
        nonlocal state
        state, metrics = step(state, batch)
        return state, metrics

    return run


def programs(
    module: str,
    fields: dict,
    batch: int,
    names: Iterable[str],
    parts: Iterable[str] = ('forward', 'step'),
) -> dict[str, dict]:
    """Forward pass and training step of these formulations, or one of the two."""
    config = importlib.import_module(module).get_config()
    config.model.update(fields)
    config.training.batch_size = batch
    experiment = kinds.create(config)
    model = experiment.model
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (batch, *model.image_shape)).astype(np.uint8)
    data, x = {'image': pixels}, rng.normal(size=pixels.shape).astype(np.float32)
    t = np.linspace(0.1, 1, batch, dtype=np.float32)

    def forward(params, x, t):
        return model.process(params).score(x, t)

    params = noisy(jax.jit(model.init_params)(jax.random.key(0)))

    def state():
        first = jax.jit(experiment.init)(jax.random.key(0))
        averages = {name: jax.tree.map(jnp.copy, params) for name in first.averages}
        return first._replace(params=jax.tree.map(jnp.copy, params), averages=averages)

    found = {}
    for name in names:
        context, placed = FORMULATIONS[name]
        mesh = sharding.create_mesh() if placed else None
        put = functools.partial(place, mesh)
        arguments = {
            'forward': lambda put=put: (forward, put(params, False), put(x, True), put(t, True)),
            'step': lambda put=put: (experiment.step, put(state(), False), put(data, True)),
        }
        with context():
            found[name] = {
                part: compiled(*arguments[part](), repeated=part == 'step') for part in parts
            }
    return found


def noisy(params):
    """Parameters of which none is zero."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    pairs = zip(leaves, keys, strict=True)
    return tree.unflatten([a + 0.02 * jax.random.normal(key, a.shape) for a, key in pairs])


def place(mesh, tree, is_batch):
    """Arrays on one device, or, of a mesh, on all: split if they are a batch, or else whole."""
    if mesh is None:
        return jax.device_put(tree, jax.devices()[0])
    layout = sharding.by_batch if is_batch else sharding.copied
    return jax.device_put(tree, layout(mesh))


def compare(outputs: dict[str, jax.Array]) -> None:
    """Raises if formulations differ by more than rounding."""
    reference, *others = (np.asarray(output) for output in outputs.values())
    for other in others:
        np.testing.assert_allclose(other, reference, rtol=0, atol=2e-4 * np.abs(reference).max())


def medians(runs: dict, repeats: int) -> dict:
    """Seconds of programs that take turns; the first turn does not count."""
    seconds = {key: [] for key in runs}
    for _ in range(repeats + 1):
        for key, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[key].append(time.perf_counter() - start)
    return {key: statistics.median(values[1:]) for key, values in seconds.items()}


def peak(repeats: int) -> float:
    """Operations a second of a product of two matrices, on one device."""
    size = 2048
    a = jax.device_put(jnp.ones((size, size)), jax.devices()[0])
    product = jax.jit(jnp.dot)
    seconds = medians({'product': lambda: product(a, a)}, repeats)
    return 2 * size**3 / seconds['product']


def medians_and_peak(runs: dict, repeats: int) -> tuple[dict, float]:
    """Seconds of programs, and operations a second of a product before and after them."""
    before = peak(2 * repeats)
    seconds = medians(runs, repeats)
    return seconds, statistics.mean([before, peak(2 * repeats)])


def measure(case: tuple, repeats: int) -> list[str]:
    """The cells of a case's rows, a row for each formulation."""
    found = programs(*case, FORMULATIONS)
    compare({name: each['forward'].run() for name, each in found.items()})
    flops = found['published']['forward'].flops
    runs = {(name, part): each[part].run for name, each in found.items() for part in each}
    seconds, rate = medians_and_peak(runs, repeats)
    rows = []
    for name, parts in found.items():
        forward, step = seconds[name, 'forward'], seconds[name, 'step']
        cells = [
            name,
            f'{1e3 * forward:.0f} ms, {flops / forward / rate:.0%}',
            f'{1e3 * step:.0f} ms, {3 * flops / step / rate:.0%}',
            f'{seconds["published", "step"] / step:.2f}',
            f'{parts["step"].compile_seconds:.1f} s',
            f'{parts["step"].temporaries / 2**20:.0f} MiB',
        ]
        rows.append(' | '.join(cells))
    print(f'peak {rate / 1e9:.0f} GFLOP/s; forward pass {flops / 1e9:.2f} GFLOP', flush=True)
    return rows


def measure_latent(case: tuple, repeats: int) -> list[str]:
    """The cells of the rows of a latent score model."""
    module, fields, batch = case
    found = programs(module, fields, batch, OURS, ['step'])
    experiment = kinds.create(importlib.import_module(module).get_config())
    shapes = experiment.batch_shapes
    flops = cost.of_training(experiment.init, experiment.loss, shapes, batch, 1).step.flops
    runs = {name: each['step'].run for name, each in found.items()}
    seconds, rate = medians_and_peak(runs, repeats)
    print(f'peak {rate / 1e9:.0f} GFLOP/s; training step {flops / 1e9:.2f} GFLOP', flush=True)
    rows = []
    for name, parts in found.items():
        cells = [
            name,
            '',
            f'{1e3 * seconds[name]:.0f} ms, {flops / seconds[name] / rate:.0%}',
            '',
            f'{parts["step"].compile_seconds:.1f} s',
            f'{parts["step"].temporaries / 2**20:.0f} MiB',
        ]
        rows.append(' | '.join(cells))
    return rows


HEADER = (
    '| network | formulation | forward, share of peak | training step, share of peak '
    '| times faster | compilation | temporaries, of each device |\n' + '| --- ' * 7 + '|'
)
FORMULATIONS = {
    'ours': (contextlib.nullcontext, True),
    'ours, one device': (contextlib.nullcontext, False),
    'published': (published_network.formulation, False),
}
OURS = [name for name in FORMULATIONS if name != 'published']


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--only', nargs='*', default=[''], help='parts of the names of cases')
    args = parser.parse_args()
    measures = dict.fromkeys(CASES, measure) | dict.fromkeys(LATENT_CASES, measure_latent)
    cases = CASES | LATENT_CASES
    sharding.use_cores(*(batch for _, _, batch in cases.values()))
    lines = []
    for name, case in cases.items():
        if any(part in name for part in args.only):
            print(name, flush=True)
            lines += [f'| {name} | {row} |' for row in measures[name](case, args.repeats)]
    print(f'\nMedians of {args.repeats}; {machine.name()}\n\n{HEADER}', *lines, sep='\n')


if __name__ == '__main__':
    main()

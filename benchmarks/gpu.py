"""What a GPU makes of it: peaks, agreement, training steps, samples and likelihoods.

    python -m benchmarks.gpu [peak golden ddpmpp ncsnpp samples likelihood] [--small]

Rows, each a table of its own:

    peak        products of two matrices in bfloat16, TF32 and float32, and a copy: what the card
                can do
    golden      how far recorded networks are from their recordings, by what products are
    ddpmpp      a training step of the published CIFAR-10 network DDPM++ (VP) at batch 128, float32
                with TF32 products and bfloat16: ours, the published formulation in JAX
                (published_network.py), and PyTorch (torch_training.py), if it is there
    ncsnpp      the same of NCSN++ (VE)
    samples     images of DDPM++ by DPM-Solver++ 2M in 20 steps
    likelihood  bits/dim of digits, by what products are; --workdir is that of a demo

The operations of a network are those that XLA counts in its published forward pass, and three times
that many in a training step; shares are of the rate of the bfloat16 product. Ours and the published
formulation take the same steps: losses and gradients are compared. PyTorch has the same parameters,
and its outputs are compared. `--small` tries all of it on narrow networks, on any machine.
"""

import os

os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch needs memory besides.

import argparse
import concurrent.futures
import dataclasses
import functools
import importlib.util
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import keys
from analysis import cost
from benchmarks import machine, networks, published_network
from configs.ve import cifar10_ncsnpp_continuous
from configs.vp import cifar10_ddpmpp_continuous, mnist_ddpmpp
from devices import sharding
from experiments import image_drawing, kinds, reading, run_files, score_measures
from experiments.score_model import ScoreModel
from published import formats, torch_names
from tests.support import golden
from tests.support import networks as recordings
from training import Params

# Names of products and what makes them: what is computed in, and how precisely.
PRODUCTS = {
    'bfloat16': ('bfloat16', 'default'),
    'TF32': ('float32', 'default'),
    'float32': ('float32', 'highest'),
}
PRODUCTS_IN_A_ROW = 8
SMALL = {'nf': 32, 'num_res_blocks': 1}
NETWORKS = {'ddpmpp': cifar10_ddpmpp_continuous, 'ncsnpp': cifar10_ncsnpp_continuous}


@dataclasses.dataclass(frozen=True)
class Options:
    """How much is measured, and where."""

    small: bool
    repeats: int = 20
    products: tuple[str, ...] = ('TF32', 'bfloat16')  # of training
    workdir: pathlib.Path | None = None

    @property
    def batch(self) -> int:
        """Images of a step."""
        return 8 if self.small else 128


def table(title: str, header: str, rows: list[list[str]]) -> None:
    """Prints a table at once, so that a run that is cut off has shown it."""
    columns = header.split(' | ')
    print(f'\n{title}; {machine.name()}\n\n| {header} |\n{"| --- " * len(columns)}|')
    print(*(f'| {" | ".join(row)} |' for row in rows), sep='\n', flush=True)


# The card


def peak_rates(small: bool, repeats: int) -> dict[str, float]:
    """Operations a second of products of two square matrices of normal numbers."""
    size, rates = 1024 if small else 8192, {}
    for name, (dtype, precision) in PRODUCTS.items():
        a, b = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in (0, 1))

        @jax.jit
        def products(a, b, precision=precision):
            """Several, so that starting them takes no share; each has the one before."""
            for _ in range(PRODUCTS_IN_A_ROW):
                b = jnp.dot(a, b, precision=precision) / size**0.5
            return b

        seconds = networks.medians({0: functools.partial(products, a, b)}, repeats)[0]
        rates[name] = 2 * PRODUCTS_IN_A_ROW * size**3 / seconds
    return rates


def peak(options: Options) -> None:
    """What the card can do."""
    rates = peak_rates(options.small, options.repeats)
    rows = [[name, f'{rate / 1e12:.1f} TFLOP/s'] for name, rate in rates.items()]
    x = jnp.ones(2**22 if options.small else 2**29)
    copy = jax.jit(lambda x: x + 1)
    seconds = networks.medians({0: functools.partial(copy, x)}, options.repeats)[0]
    rows.append(['one pass over an array', f'{2 * x.nbytes / seconds / 1e12:.2f} TB/s'])
    table('Peaks', 'product of two matrices | measured', rows)


# Agreement


def agreement(options: Options) -> None:
    """Of recorded networks: greatest difference over the recording's greatest value, and whether
    every number is within the bound of the recordings."""
    rows = []
    for path in sorted(golden.DATA.glob('model_*.npz')):
        if path.stem.endswith('torch'):
            continue
        network, params, x, labels, y = recordings.recorded(path.stem.removeprefix('model_'))
        cells = []
        for dtype, precision in PRODUCTS.values():
            apply = jax.jit(network.clone(dtype=dtype, precision=precision).apply)
            found = np.asarray(apply({'params': recordings.nested(params)}, x, labels))
            agrees = np.allclose(found, y, golden.RTOL, golden.ATOL)
            difference = np.abs(found - y).max() / np.abs(y).max()
            cells.append(f'{difference:.1e}{", within the bound" if agrees else ""}')
        rows.append([path.stem, *cells])
    table('Differences from recordings', f'network | {" | ".join(PRODUCTS)}', rows)


# Training


def configured(module: str, products: str, options: Options) -> ConfigDict:
    """The config of a published network."""
    config = NETWORKS[module].get_config()
    config.model.dtype, config.model.precision = PRODUCTS[products]
    config.training.batch_size = options.batch
    if options.small:
        config.model.update(SMALL)
    return config


def training(name: str, options: Options) -> None:
    """Steps of one network. All programs are compiled at once, and timed one by one."""
    config = configured(name, 'TF32', options)
    model = kinds.create(config).model
    flops = forward_flops(model, options.batch)
    others = start_torch(config, model, options)
    found = compiled_steps(name, options)
    outputs = compared_outputs(name)
    for process in others.values():
        process.stdout.readline()  # It is ready.
    runs = first_steps(found, model, options)
    rate = peak_rates(options.small, options.repeats)['bfloat16']
    seconds = networks.medians(runs, options.repeats)
    measured = {
        key: Measured(seconds[key], compilation, program.memory_analysis().temp_size_in_bytes)
        for key, (program, compilation, _) in found.items()
    }
    del runs, found
    measured |= {
        (f'PyTorch {version}, compiled', products): result
        for products, process in others.items()
        for version, result in finish_torch(process, outputs)
    }
    title = f'{name}, batch {options.batch}, {3 * flops / 1e12:.2f} TFLOP a step'
    header = (
        'formulation | products | step | images a second | share of peak '
        '| times faster than the best other | compilation | temporaries'
    )
    rows = rows_of(measured, options.batch, 3 * flops / rate)
    table(f'{title}, peak {rate / 1e12:.0f} TFLOP/s', header, rows)


class Measured(NamedTuple):
    """Of a training step."""

    seconds: float
    compile_seconds: float
    bytes: float


def rows_of(measured: dict[tuple[str, str], Measured], batch: int, least: float) -> list[list[str]]:
    """Cells of all formulations; `least` are the seconds that the peak would take."""
    best = {
        products: min(m.seconds for (by, p), m in measured.items() if p == products and by != OURS)
        for _, products in measured
    }
    return [
        [
            by,
            products,
            f'{1e3 * m.seconds:.1f} ms',
            f'{batch / m.seconds:,.0f}',
            f'{least / m.seconds:.0%}',
            f'{best[products] / m.seconds:.2f}' if by == OURS else '',
            f'{m.compile_seconds:.0f} s',
            f'{m.bytes / 2**30:.1f} GiB',
        ]
        for (by, products), m in measured.items()
    ]


OURS = 'ours'


def compiled_steps(name: str, options: Options) -> dict:
    """Training steps of both formulations in JAX: program, shapes of its state, seconds."""
    found = {}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for formulation in (OURS, 'published'):
            context, _ = networks.FORMULATIONS[formulation]
            for products in options.products:
                with context():
                    lowered, state = lowered_step(configured(name, products, options))
                found[formulation, products] = state, pool.submit(compiled, lowered)
    return {key: (*future.result(), state) for key, (state, future) in found.items()}


def lowered_step(config: ConfigDict):
    """A training step before it is compiled, and the shapes of its state."""
    experiment, update = kinds.create(config), reading.create_update(config)
    params = jax.eval_shape(experiment.model.init_params, jax.random.key(0))
    state = jax.eval_shape(update.init, params)
    # A new function each time: JAX keeps what it traced, and another formulation is another.
    step = jax.jit(lambda state, batch: experiment.step(state, batch), donate_argnums=0)
    batch = {'image': experiment.batch_shapes(config.training.batch_size)['image']}
    return step.lower(state, batch), state


def compiled(lowered):
    """The program, and the seconds that took."""
    start = time.perf_counter()
    program = lowered.compile()
    return program, time.perf_counter() - start


def first_steps(found: dict, model: ScoreModel, options: Options) -> dict:
    """What takes further steps, after one each that is compared."""
    pixels = np.random.default_rng(0).integers(0, 256, (options.batch, *model.image_shape))
    batch, params = jax.device_put({'image': pixels.astype(np.uint8)}), random_params(model)
    runs, metrics = {}, {}
    for key, (program, _, shapes) in found.items():
        zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
        state = zeros._replace(params=params, averages={'ema': params})
        state, metrics[key] = program(jax.device_put(state), batch)
        runs[key] = networks.repeating(program, state, batch)
    for products in options.products:
        ours, published = (metrics[by, products] for by in (OURS, 'published'))
        # The masks of dropout are the same: what differs is rounding.
        bound = {'TF32': 5e-3, 'bfloat16': 5e-2}[products]
        np.testing.assert_allclose(ours[:2], published[:2], rtol=bound)
    return runs


def random_params(model: ScoreModel, seed: int = 0) -> Params:
    """Parameters that keep the size of what passes through; made on the host, without compiling."""
    rng = np.random.default_rng(seed)

    def value(path, leaf):
        numbers = rng.normal(size=leaf.shape).astype(np.float32)
        if leaf.ndim > 1:
            return numbers / np.float32(math.sqrt(math.prod(leaf.shape[:-1])))
        scale, offset = {'scale': (0.02, 1), 'W': (16, 0)}.get(path[-1].key, (0.02, 0))
        return np.float32(scale) * numbers + np.float32(offset)

    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(value, shapes)


def forward_flops(model: ScoreModel, batch: int) -> int:
    """Operations of a forward pass as published."""
    params = jax.eval_shape(model.init_params, jax.random.key(0))
    x = jax.ShapeDtypeStruct((batch, *model.image_shape), np.float32)
    t = jax.ShapeDtypeStruct((batch,), np.float32)
    with published_network.formulation():
        return cost.flops(lambda params, x, t: model.process(params).score(x, t), params, x, t)


# The other library


def start_torch(config: ConfigDict, model: ScoreModel, options: Options) -> dict:
    """Programs that compile the same step in PyTorch, and then wait; none without PyTorch."""
    if not importlib.util.find_spec('torch'):
        return {}
    command = [sys.executable, '-m', 'benchmarks.torch_training', json.dumps(torch_fields(config))]
    command += [f'--size={model.image_shape[0]}', f'--batch={options.batch}']
    command += [f'--repeats={options.repeats}']
    return {
        products: subprocess.Popen(
            [*command, '--dtype', products.lower()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for products in options.products
    }


def finish_torch(process: subprocess.Popen, outputs: pathlib.Path) -> list[tuple[str, Measured]]:
    """What a waiting program measures, with its version; nothing, and a line, if it has failed.

    Raises AssertionError if its network is another than ours.
    """
    said, _ = process.communicate(f'{outputs}\n')
    if process.returncode:
        print(f'PyTorch ended with {process.returncode}', flush=True)
        return []
    found = json.loads(said.splitlines()[-1])
    assert found['difference'] < 1e-4, found
    return [(found['version'], Measured(*(found[name] for name in Measured._fields)))]


def torch_fields(config: ConfigDict) -> dict:
    """The fields of the network that make a difference there."""
    names = (
        *('nf', 'ch_mult', 'num_res_blocks', 'attn_resolutions', 'dropout', 'resblock_type'),
        *('embedding_type', 'fourier_scale', 'conditional', 'resamp_with_conv', 'fir'),
        *('fir_kernel', 'progressive', 'progressive_input', 'progressive_combine'),
        *('skip_rescale', 'scale_by_sigma'),
    )
    return {name: config.model[name] for name in names}


def compared_outputs(name: str) -> pathlib.Path | None:
    """A file with a narrow network of the same kind, its parameters by their names in PyTorch, and
    what ours makes of a few images; None without PyTorch.
    """
    if not importlib.util.find_spec('torch'):
        return None
    config = configured(name, 'float32', Options(small=True))
    model = kinds.create(config).model
    params, rng = random_params(model), np.random.default_rng(1)
    x = rng.normal(size=(4, *model.image_shape)).astype(np.float32)
    labels = np.linspace(0.1, 20, 4, dtype=np.float32)
    y = jax.jit(model.network.clone(centered=True).apply)({'params': params}, x, labels)
    fields = torch_fields(config)
    path = pathlib.Path(tempfile.mkdtemp()) / 'network.npz'
    arrays = torch_state(model, params, fields)
    np.savez(path, x=x, labels=labels, y=y, fields=json.dumps(fields), **arrays)
    return path


def torch_state(model: ScoreModel, params: Params, fields: dict) -> dict[str, np.ndarray]:
    """Our parameters by their published names in PyTorch, and with its axes."""
    from benchmarks.torch_ncsnpp import Network

    theirs = Network(model.image_shape[0], model.image_shape[2], **fields).state_dict()
    ours, state = recordings.flat(params), {}
    parts = formats.outline(model.init_params).parts
    for name, tensor in theirs.items():
        # Numbered elements show where renaming takes each of them.
        numbers = np.arange(tensor.numel()).reshape(tensor.shape)
        ((path, places),) = torch_names.renamed({name: numbers}, parts).items()
        values = np.empty(numbers.size, np.float32)
        values[places.ravel()] = ours[path].ravel()
        state[name] = values.reshape(numbers.shape)
    return state


# Samples and likelihoods


def samples(options: Options) -> None:
    """Rates of a sampler, by what products are."""
    rows = []
    for products in PRODUCTS:
        config = configured('ddpmpp', products, options)
        config.sampling.update({'method': 'dpmpp_2m', 'steps': 20, 'grid': 'log_snr'})
        model = kinds.create(config).model
        params = random_params(model)
        sampler = image_drawing.create_sampler(config, model.sde, config.sampling.method)

        def draw(params, indices, model=model, sampler=sampler):
            image_keys = keys.of_images(jax.random.key(0), indices)
            return sampler(image_keys, model.process(params), model.image_shape).x

        run = functools.partial(jax.jit(draw), params, jnp.arange(options.batch))
        seconds = networks.medians({0: run}, 3)[0]
        rows.append([products, f'{seconds:.2f} s', f'{options.batch / seconds:.1f}'])
    title = f'{options.batch} images of DDPM++ by DPM-Solver++ 2M, 20 steps'
    table(title, 'products | time | images a second', rows)


def bits_per_dim(options: Options) -> None:
    """Time, evaluations and result, by what products are."""
    config = mnist_ddpmpp.get_config()
    config.eval.variational_draws = 0
    config.eval.batch_size = 8 if options.small else 256
    mesh = sharding.create_mesh()
    experiment = kinds.create(config, mesh)
    params = random_params(experiment.model)
    if options.workdir:
        params = run_files.restore(config, options.workdir, experiment, mesh).evaluated
    index = np.arange(config.eval.batch_size)
    batch = sharding.split(mesh, {**experiment.data('test').gather(index), 'index': index})
    rows, exact = [], None
    for products in ('float32', 'TF32', 'bfloat16'):
        dtype, config.eval.precision = PRODUCTS[products]
        model = dataclasses.replace(
            experiment.model, network=experiment.model.network.clone(dtype=dtype)
        )
        run = functools.partial(
            score_measures.bits_per_dim_program(config, model, mesh).run,
            *(params, jax.random.key(0), batch),
        )
        found = run()
        values = np.asarray(found['by_draw']).mean((1, 2))
        exact = values if exact is None else exact
        seconds = networks.medians({0: run}, 1)[0]
        rows.append(
            [
                products,
                f'{seconds:.1f} s',
                f'{np.mean(found["nfe"]):.0f}',
                f'{values.mean():.5f}',
                f'{np.abs(values - exact).max():.1e}',
            ]
        )
    header = 'products | time | evaluations | bits/dim | greatest difference of an image'
    table(f'Likelihood of {len(index)} digits, tolerance {config.eval.rtol:g}', header, rows)


ROWS: dict[str, Callable[[Options], None]] = {
    'peak': peak,
    'golden': agreement,
    'ddpmpp': functools.partial(training, 'ddpmpp'),
    'ncsnpp': functools.partial(training, 'ncsnpp'),
    'samples': samples,
    'likelihood': bits_per_dim,
}


def main() -> None:
    """Prints the tables of these rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('rows', nargs='*', metavar='row', choices=list(ROWS))
    parser.add_argument('--small', action='store_true')
    parser.add_argument('--repeats', type=int, default=20)
    parser.add_argument(
        '--products', nargs='+', default=['TF32', 'bfloat16'], choices=list(PRODUCTS)
    )
    parser.add_argument('--workdir', type=pathlib.Path)
    args = parser.parse_args()
    options = Options(args.small, args.repeats, tuple(args.products), args.workdir)
    for name in args.rows or ROWS:
        ROWS[name](options)


if __name__ == '__main__':
    main()

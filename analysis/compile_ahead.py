"""--mode=compile: what training, sampling and likelihoods take on a TPU pod, found without one.

libtpu is XLA's compiler for TPUs. It needs none of them: a topology is described by its name, and
the programs that main.py runs elsewhere are compiled for it, from shapes alone. What they do is
read off their text (hlo.py), and set against the published peaks of the chip (roofline.py).
"""

import importlib.util
import math
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from analysis import cost, hlo, roofline
from analysis.hlo import Program
from analysis.roofline import CHIPS, Chip
from choices import InputError, choose
from devices import sharding
from experiments import kinds, programs
from experiments.experiment import Drawing, Experiment
from experiments.experiment import Program as BatchProgram
from training import Params, TrainState

TOPOLOGY = re.compile(r'(\w+):(\d+(?:x\d+){1,2})')
SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)  # numbers of chips that efficiencies are predicted for
ALLOWED = 'a chip and how many there are along each axis, such as v5e:4x4, v5e:16x16 or v5p:4x4x8'


class Pod(NamedTuple):
    """The devices of a topology, and what each of them, a chip or a core of one, is."""

    device: str
    mesh: Mesh
    chip: Chip
    cores: int


class Task(NamedTuple):
    """A program to be compiled and the shapes of its arguments; `given` are the large ones."""

    title: str
    run: Callable
    args: tuple
    given: dict[str, Any]
    runs: int = 1  # equal parts of the program, of which one is spoken of
    is_training: bool = False


def compile_ahead(config: ConfigDict, topology: str | None) -> None:
    """Compiles training step, sampler and likelihood for a topology, and prints what they take."""
    pod = describe(topology, config.mesh)
    experiment = kinds.create(config, pod.mesh)
    for task in tasks(config, experiment, pod.mesh):
        print(f'{task.title} on each of {pod.mesh.size} {pod.device}: compiling ...', flush=True)
        print(examine(task, pod), flush=True)


# Pods


def describe(topology: str | None, shape: ConfigDict) -> Pod:
    """The pod of this name, as a mesh of config.mesh. Raises InputError if there is none, if it
    makes no such mesh, or if there is no compiler for it.
    """
    match = TOPOLOGY.fullmatch(topology or '')
    if not match:
        raise InputError(f'--topology: {topology!r} is not {ALLOWED}')
    name, axes = match.groups()
    chip = choose(CHIPS, name, '--topology')
    num_chips = math.prod(map(int, axes.split('x')))
    if num_chips > chip.pod:
        raise InputError(f'--topology: {topology!r} has {num_chips} chips, and a pod {chip.pod}')
    if importlib.util.find_spec('libtpu') is None:
        raise InputError(
            '--mode=compile: there is no libtpu; pip install -r requirements-tpu.txt brings it'
        )
    prepare()
    try:
        devices = topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f'--topology: {topology!r} is no {name} pod ({reason}); {ALLOWED}'
        ) from None
    cores = len(devices) // num_chips
    device = name if cores == 1 else f'{name} cores'
    mesh = sharding.create_mesh(**shape, devices=devices)
    return Pod(device, mesh, chip.share(cores), cores)


def prepare() -> None:
    """Keeps libtpu from looking for TPUs, locking them, and speaking of what it has not found."""
    jax.config.update('jax_platforms', 'cpu')
    for name, value in LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


LIBTPU_ENVIRONMENT = {
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_STDERR_LOG_LEVEL': '3',
    'TPU_MIN_LOG_LEVEL': '3',
}


# Programs


def tasks(config: ConfigDict, experiment: Experiment, mesh: Mesh) -> Iterator[Task]:
    """What the modes run, with batches of the sizes of the config."""
    for section in ('training', 'eval', 'sampling'):
        if section in config:
            field = f'{section}.batch_size'
            sharding.check_divides(mesh, field, config[section].batch_size)
    if config.debug.nans:
        raise InputError('debug.nans: True; --mode=compile compiles training without, as it is run')
    state, drawing = programs.abstract_state(experiment, mesh), experiment.drawing()
    yield training_task(config, experiment, mesh, state)
    if drawing:
        yield sampling_task(drawing, mesh, state.evaluated)
    for program in experiment.programs():
        yield program_task(program, mesh, state.evaluated)


def training_task(
    config: ConfigDict, experiment: Experiment, mesh: Mesh, state: TrainState
) -> Task:
    """A step, of a program of training.steps_per_dispatch."""
    steps, size = config.training.steps_per_dispatch, config.training.batch_size
    stacked = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((steps, *a.shape), a.dtype), experiment.batch_shapes(size)
    )
    batches = split(mesh, stacked, axis=1)
    return Task(
        f'training step of {size // mesh.size} examples',
        programs.training_steps(experiment, mesh),
        (state, batches),
        {
            'parameters': state.params,
            'moving average': state.averages,
            'optimiser': state.opt_state,
            'batches': batches,
        },
        steps,
        is_training=True,
    )


def sampling_task(drawing: Drawing, mesh: Mesh, params: Params) -> Task:
    """A batch of images."""
    size = drawing.batch_size
    indices = split(mesh, jax.ShapeDtypeStruct((size,), jnp.int32))
    return Task(
        f'sampling of {size // mesh.size} images by {drawing.name}',
        programs.drawing(drawing, mesh),
        (params, KEY, indices, drawing.given),
        {'parameters': params},
    )


def program_task(program: BatchProgram, mesh: Mesh, params: Params) -> Task:
    """A batch of a measure."""
    batch = split(mesh, program.batch)
    size = jax.tree.leaves(batch)[0].shape[0]
    return Task(
        f'{program.title} of {size // mesh.size} examples',
        program.run,
        (params, KEY, batch),
        {'parameters': params, 'batch': batch},
    )


KEY = jax.eval_shape(jax.random.key, 0)


def split(mesh: Mesh, shapes: Any, axis: int = 0) -> Any:
    """What sharding.split makes of arrays of these shapes."""
    by_batch = sharding.by_batch(mesh, axis)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=by_batch), shapes)


# Reports


def examine(task: Task, pod: Pod) -> str:
    """The report of a program, or one line on why there is none."""
    lowered = task.run.lower(*task.args)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return f'  does not fit: {does_not_fit(str(error))}'
    program = hlo.read(compiled.as_text(), pod.mesh.size).part(task.runs)
    rows = memory_rows(task, compiled.memory_analysis(), pod.chip)
    rows += program_rows(program) + time_rows(program, pod.chip)
    if task.is_training:
        rows += scaling_rows(program, pod, task.given['parameters'])
    return table(rows)


def does_not_fit(message: str) -> str:
    """What a compiler said of memory, and what helps."""
    found = re.search(r'Used ([\d.]+\w) of ([\d.]+\w) hbm', message)
    needs = f'{found[1]} of {found[2]} needed' if found else message.splitlines()[0]
    return (
        f'{needs}; smaller batches, --config.model.remat=True, --config.model.dtype=bfloat16 or '
        'more chips help'
    )


def memory_rows(task: Task, found: Any, chip: Chip) -> list[tuple[str, str]]:
    """HBM by what it is for; arrays are padded to the tiles of the hardware."""
    given = {name: bytes_on_device(tree) for name, tree in task.given.items()}
    padding = found.argument_size_in_bytes - sum(given.values())
    total = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
        + found.generated_code_size_in_bytes
    )
    return [
        ('memory', ''),
        *((f'  {name}', cost.memory(size)) for name, size in given.items()),
        ('  padding of these', cost.memory(padding)),
        ('  activations and gradients', cost.memory(found.temp_size_in_bytes)),
        ('  program', cost.memory(found.generated_code_size_in_bytes)),
        (f'  all, of {cost.memory(chip.hbm_bytes)}', cost.memory(total)),
    ]


def bytes_on_device(tree: Any) -> int:
    """What a device has of arrays whose shardings are known."""
    return sum(
        math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(tree)
    )


def program_rows(program: Program) -> list[tuple[str, str]]:
    """Operations, by the type of what is multiplied, traffic, and communication by kind."""
    flops, sent = program.flops.items(), program.sent_bytes.items()
    rows = [
        *((f'operations on {dtype}', cost.operations(number)) for dtype, number in flops),
        ('memory traffic', cost.memory(program.hbm_bytes)),
        *((f'sent by {kind}', cost.memory(size)) for kind, size in sent),
    ]
    if program.open_loops:
        rows.append(('loops of unknown length, counted once', str(program.open_loops)))
    return rows


def time_rows(program: Program, chip: Chip) -> list[tuple[str, str]]:
    """The least time, and what of it each part takes."""
    found = roofline.times(program, chip)
    parts = [(f'  {name}', milliseconds(t)) for name, t in found._asdict().items()]
    return [('time at least', milliseconds(found.step)), *parts]


def scaling_rows(program: Program, pod: Pod, params: Any) -> list[tuple[str, str]]:
    """What is sent over what summing the gradient takes, and efficiencies."""
    needed = hlo.SENT['all-reduce'](pod.mesh.size) * cost.num_bytes(params)
    sent = sum(program.sent_bytes.values())
    rows = [('sent, over a float32 gradient', f'{sent / needed:.3f}')]
    for n in SIZES:
        share = roofline.efficiency(program, pod.chip, pod.mesh.size, n * pod.cores)
        rows.append((f'efficiency on {n} chips', f'{share:.1%}'))
    return rows


def milliseconds(seconds: float) -> str:
    """Seconds in thousandths."""
    return f'{1e3 * seconds:.4g} ms'


def table(rows: list[tuple[str, str]]) -> str:
    """Names and values, one a line."""
    width = max(len(name) for name, _ in rows)
    return '\n'.join(f'  {name:<{width}}  {value:>13}'.rstrip() for name, value in rows)

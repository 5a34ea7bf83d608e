"""Training, sampling and what published checkpoints need: loops over steps, clocks and files.

A workdir holds `config.json`, `checkpoints/`, `logs/`, `samples/` and `eval/<step>/`.
"""

import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, Int, Key, UInt8
from ml_collections import ConfigDict
from tqdm import tqdm

import training
from analysis import cost, nans
from choices import InputError, RunError
from datasets import batching, loading, quantization
from devices import preemption, processes, sharding
from devices.preemption import StopRequest
from experiments.experiment import (
    Classifier,
    Experiment,
    ScoreModel,
    create_cost,
    create_experiment,
    create_loss,
    create_optimizer,
)
from experiments.samplers import create_sampler
from published import formats
from reports import logs, pictures, plots, report
from reports.logs import MetricsLog, ProgressLog
from storage import resumable, workdirs
from storage.checkpoints import Checkpoints, Policy
from training import TrainState

LABELS_CHECKED = 256  # images whose labels are looked at before a classifier is trained


def use_cores(config: ConfigDict, num_processes: int) -> None:
    """On a CPU, every core is a device as far as the batches divide; before anything else."""
    sections = [config[name] for name in ('training', 'eval', 'sampling') if name in config]
    sizes = (section.batch_size for section in sections)
    sharding.use_cores(*sizes, **config.mesh, num_processes=num_processes)


# Training


def train(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Trains to config.training.num_steps, from the newest checkpoint in `workdir` if there is one.

    The final state is the same, bit for bit, however often the run was stopped and started again.
    """
    check_periods(config.training)
    mesh = sharding.create_mesh(**config.mesh)
    fields = config.training
    check_batch_sizes(mesh, config, 'training.batch_size')
    experiment = create_experiment(config)
    loss = create_loss(config, experiment)
    draw_if_due = create_grid_drawer(config, experiment, mesh)
    train_images, test_images = (load_images(config, split) for split in ('train', 'test'))
    check_enough(train_images, fields.batch_size)
    check_labels(config, experiment, train_images)
    abstract = abstract_state(config, experiment, mesh)
    processes.from_first(lambda: workdirs.claim(workdir, config.to_dict()))

    run_steps = create_run(config, loss, mesh, abstract)
    test_loss = sharding.jit(
        mesh,
        lambda params, key, batch: loss(params, key, batch, False).mean(),
        out_shardings=sharding.copied(mesh),
    )
    test_batch = first_batch(test_images, fields.batch_size, mesh)

    with open_checkpoints(config, workdir) as checkpoints, StopRequest() as stop:
        saved = checkpoints.steps()
        state = (
            checkpoints.restore(abstract) if saved else first_state(config, experiment, abstract)
        )
        step = start = int(state.step)
        print(f'{workdir}: step {start} of {fields.num_steps}', flush=True)
        stream = dispatches(config, train_images, start, mesh)
        log = MetricsLog(workdir / 'logs' if processes.is_first() else None, start)
        with ProgressLog(log, start, fields.num_steps, fields.log_every) as progress:
            while step < fields.num_steps and not stop.is_due(step):
                batches, waited = timed(next, stream)
                state, found = run_steps(state, batches)
                step += fields.steps_per_dispatch
                progress.add(step, found._asdict(), waited)
                check_skipped(config, progress, checkpoints)
                is_tested, is_saved = (
                    is_due(step, period, fields.num_steps)
                    for period in (fields.eval_every, fields.checkpoint_every)
                )
                if is_tested or is_saved:
                    tested = test_loss(state.ema_params, jax.random.key(config.seed), test_batch)
                if is_tested:
                    progress.add_test_loss(step, tested)
                draw_if_due(step, state.ema_params, workdir / 'samples')
                if is_saved:
                    checkpoints.save(state, float(tested))
                checkpoints.check()
            logs.read()
            check_skipped(config, progress, checkpoints)
        if step < fields.num_steps:
            leave(workdir, checkpoints, state)
    processes.on_first(show_training, workdir)


def check_skipped(config: ConfigDict, progress: ProgressLog, checkpoints: Checkpoints) -> None:
    """Raises RunError if more updates in a row were skipped than config.training allows."""
    step, count = progress.most_skipped
    if count < config.training.max_skipped:
        return
    checkpoints.wait()
    last = max((known for known in checkpoints.steps() if known <= step - count), default='none')
    raise RunError(
        f'step {step}: loss or gradient were not finite {count} times in a row '
        f'(training.max_skipped); the last good checkpoint: {last}; likely causes: '
        f'optim.lr = {config.optim.lr:g} is too high, optim.warmup = {config.optim.warmup} too '
        f'short, or model.dtype = {config.model.dtype} too coarse; --config.debug.nans=True finds '
        'the operation'
    )


def leave(workdir: pathlib.Path, checkpoints: Checkpoints, state: TrainState) -> NoReturn:
    """Saves the state, and ends the program as SIGTERM would."""
    checkpoints.save(state)
    checkpoints.wait()
    print(f'{workdir}: SIGTERM; step {state.step} is saved, and the same command goes on from it')
    raise SystemExit(preemption.EXIT_STATUS)


def create_run(
    config: ConfigDict, loss: Callable, mesh: Mesh, abstract: TrainState
) -> Callable[[TrainState, Any], tuple[TrainState, training.Metrics]]:
    """Several steps as one program; with config.debug.nans it looks what became of them."""
    gradient = training.make_gradient(
        lambda params, key, batch: loss(sharding.whole(mesh, params), key, batch, True).mean(),
        config.seed,
    )
    optimizer, fields = create_optimizer(config), config.optim
    step = training.make_step(gradient, optimizer, fields.ema_rate, fields.ema_warmup)
    out_shardings = sharding.by_size(mesh, abstract), sharding.copied(mesh)
    run = functools.partial(jax.jit, training.scan_steps(step), out_shardings=out_shardings)
    if not config.debug.nans:
        return run(donate_argnums=0)
    if processes.place()[1] > 1:
        raise InputError('debug.nans: True is for one process, which has all arrays whole')
    run = run()  # The state before is needed again.

    def run_or_locate(state, batches):
        after, found = run(state, batches)
        if np.any(found.skipped):
            raise RunError(nans.locate(step, gradient, state, batches))
        return after, found

    return run_or_locate


def show_training(workdir: pathlib.Path) -> None:
    """Writes `curves.png` and the report."""
    curves = plots.training_curves(logs.read(workdir / 'logs' / 'metrics.jsonl'))
    plots.save(curves, workdir / 'curves.png')
    print(f'Curves and grids of samples are in {report.write(workdir)}')


def create_grid_drawer(
    config: ConfigDict, experiment: ScoreModel | Classifier, mesh: Mesh
) -> Callable[[int, Any, pathlib.Path], None]:
    """`draw_if_due(step, params, directory)` saves the grid of samples of a step that has one."""
    if isinstance(experiment, Classifier):
        return lambda step, params, directory: None
    fields = config.training
    sample = create_sampler(config, experiment, config.sampling.method)
    grid_sharding = sharding.if_divided(mesh, fields.num_samples)
    indices = sharding.put(np.arange(fields.num_samples), grid_sharding)

    def pixels(params, key, indices):
        return quantization.to_uint8(sample(params, key, indices).x, experiment.centered)

    draw = sharding.jit(mesh, pixels, out_shardings=grid_sharding)

    def draw_if_due(step, params, directory):
        if is_due(step, fields.sample_every, fields.num_steps):
            drawn = processes.gather(draw(params, jax.random.key(config.seed), indices))
            path = directory / f'{step:07d}.png'
            processes.on_first(pictures.save_png, path, pictures.grid(drawn))

    return draw_if_due


def abstract_state(config: ConfigDict, experiment: Experiment, mesh: Mesh) -> TrainState:
    """The shapes of a state, and how it lies on the mesh."""
    create = functools.partial(create_state, config, experiment)
    return sharding.laid_out(mesh, jax.eval_shape(lambda: create(jax.random.key(config.seed))))


def first_state(config: ConfigDict, experiment: Experiment, abstract: TrainState) -> TrainState:
    """The state before the first step, from config.seed; it lies as its `abstract_state` says."""
    create = functools.partial(create_state, config, experiment)
    layout = jax.tree.map(lambda array: array.sharding, abstract)
    return jax.jit(create, out_shardings=layout)(jax.random.key(config.seed))


def create_state(config: ConfigDict, experiment: Experiment, key: Key[Array, '']) -> TrainState:
    """A state before the first step, with parameters from `key`."""
    return training.create_state(experiment.init_params(key), create_optimizer(config))


def dispatches(
    config: ConfigDict, data: loading.Images, start: int, mesh: Mesh
) -> Iterator[dict[str, jax.Array]]:
    """Batches from step `start` on, on the devices, stacked by training.steps_per_dispatch."""
    stream = batching.batches(
        data,
        config.training.batch_size,
        config.seed,
        start,
        *processes.place(),
    )
    while True:
        group = [next(stream) for _ in range(config.training.steps_per_dispatch)]
        stacked = {name: np.stack([batch[name] for batch in group]) for name in group[0]}
        yield sharding.split(mesh, stacked, axis=1)


def is_due(step: int, period: int, last: int) -> bool:
    """Whether something with this period (0: never) happens after `step`; the last one counts."""
    return period > 0 and (step % period == 0 or step == last)


# Sampling


class Drawn(NamedTuple):
    """Samples in 8 bits, their evaluations, and the seconds they took once compiled."""

    pixels: UInt8[np.ndarray, 'num height width channels']
    nfe: Int[np.ndarray, 'num']
    seconds: float


def sample(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Draws images from a checkpoint, to `samples/<step>_<method>.png` and `.npz`."""
    mesh = sharding.create_mesh(**config.mesh)
    experiment = create_experiment(config)
    if isinstance(experiment, Classifier):
        raise InputError(
            f'--mode=sample: {config.model.name!r} is a classifier, and draws no images'
        )
    check_batch_sizes(mesh, config, 'sampling.batch_size')
    method = config.sampling.method
    draw = create_sampler(config, experiment, method)
    state = restore(config, workdir, experiment, mesh)
    drawn = draw_samples(config, experiment, draw, state.ema_params, mesh, method)
    stem = workdir / 'samples' / f'{int(state.step):07d}_{method}'
    found = {'samples': drawn.pixels, 'nfe': drawn.nfe}
    processes.on_first(write_drawn, workdir, stem, pictures.grid(drawn.pixels), found)
    tell_drawn(drawn, stem)


def write_drawn(
    workdir: pathlib.Path, stem: pathlib.Path, sheet: np.ndarray, arrays: resumable.Arrays
) -> None:
    """A grid of images and arrays under one name, and the report that shows them."""
    pictures.save_png(stem.with_suffix('.png'), sheet)
    np.savez_compressed(stem.with_suffix('.npz'), **arrays)
    report.write(workdir)


def tell_drawn(drawn: Drawn, stem: pathlib.Path) -> None:
    """One line on what was drawn."""
    num, nfe = len(drawn.pixels), drawn.nfe.mean()
    print(f'{num}: {drawn.seconds:.1f} s, {nfe:.0f} evaluations each; {stem}.png')


def draw_samples(
    config: ConfigDict,
    model: ScoreModel,
    draw: Callable,
    params: Any,
    mesh: Mesh,
    name: str,
    num: int | None = None,
    directory: pathlib.Path | None = None,
) -> Drawn:
    """Samples by `draw(params, key, indices)`, batch by batch.

    `num` of them, or as many as config.sampling says. Batches that are in `directory` are not drawn
    again, and others are put there.
    """
    num = num or config.sampling.num_samples
    size = min(config.sampling.batch_size, math.ceil(num / mesh.size) * mesh.size)
    key = jax.random.key(config.seed)

    @functools.cache
    def compiled():
        tqdm.write(f'{name}: compiling ...')
        run = create_run_sampler(model, draw, mesh)
        return run.lower(params, key, indices_of(0)).compile()

    def indices_of(i):
        return sharding.put(np.arange(i * size, (i + 1) * size), sharding.by_batch(mesh))

    def of_batch(i):
        run = compiled()
        drawn, seconds = timed(lambda: processes.gather(run(params, key, indices_of(i))))
        return {**drawn, 'seconds': np.float64(seconds)}

    batches = []
    with processes.bar(total=num, unit='image', desc=name) as bar:
        for i in range(math.ceil(num / size)):
            batches.append(resumable.keep(directory, i, functools.partial(of_batch, i)))
            bar.update(min(size, num - i * size))
    pixels, nfe = (np.concatenate([b[of] for b in batches])[:num] for of in ('pixels', 'nfe'))
    seconds = sum(batch['seconds'] for batch in batches)
    return Drawn(pixels, nfe, float(seconds) * num / (len(batches) * size))


def create_run_sampler(model: ScoreModel, draw: Callable, mesh: Mesh) -> Callable:
    """`draw` as a program of its own: pixels in 8 bits and numbers of evaluations, by name."""

    def in_8_bits(params, key, indices):
        drawn = draw(params, key, indices)
        return {'pixels': quantization.to_uint8(drawn.x, model.centered), 'nfe': drawn.nfe}

    return sharding.jit(mesh, in_8_bits, out_shardings=sharding.by_batch(mesh))


# Published checkpoints


def import_checkpoint(config: ConfigDict, workdir: pathlib.Path, path: pathlib.Path) -> None:
    """Makes a workdir of a published checkpoint, as if this project had trained it so far."""
    experiment = create_experiment(config)
    network = formats.outline(experiment.init_params)
    found = formats.read(path, network.parts)
    params, ema_params = (
        formats.fit(flat, network, f'{name} of {path}')
        for name, flat in (('params', found.params), ('params_ema', found.ema_params))
    )
    opt_state = create_optimizer(config).init(params)
    if found.moments:
        mean, square = (
            formats.fit(flat, network, f'the optimiser of {path}')
            for flat in (found.moments.mean, found.moments.square)
        )
        count = jnp.int32(found.moments.count)
        opt_state = optax.tree.set(opt_state, mu=mean, nu=square, count=count)
    step, skipped = jnp.int32(found.step), jnp.int32(0)
    state = TrainState(step, skipped, params, opt_state, ema_params)

    mesh = sharding.create_mesh(**config.mesh)
    processes.from_first(lambda: claim_new(workdir, config))
    with open_checkpoints(config, workdir) as checkpoints:
        checkpoints.save(sharding.put(state, sharding.by_size(mesh, state)))
    optimizer = "Adam's moments" if found.moments else 'a fresh optimiser'
    print(f'{workdir}: step {found.step}, parameters, their moving average and {optimizer}')


def claim_new(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Claims a workdir; raises InputError if it has checkpoints."""
    if (workdir / 'checkpoints').exists():
        raise InputError(f'--workdir: {workdir} has checkpoints already; import into a new one')
    workdirs.claim(workdir, config.to_dict())


def export_checkpoint(config: ConfigDict, workdir: pathlib.Path, path: pathlib.Path) -> None:
    """Writes parameters and moving average of a checkpoint under their published names."""
    formats.check_writable(path)
    experiment = create_experiment(config)
    state = restore(config, workdir, experiment, sharding.create_mesh(**config.mesh))
    params, ema_params = processes.gather((state.params, state.ema_params))
    processes.on_first(formats.write, path, int(state.step), params, ema_params)
    print(f'{path}: step {int(state.step)}, parameters and their moving average')


# Before there are devices


def estimate_cost(config: ConfigDict, num_devices: int | None) -> None:
    """Prints what training costs on so many devices (None: those there are); runs nothing."""
    shape = sharding.mesh_shape(num_devices or jax.device_count(), **config.mesh)
    mesh = AbstractMesh(shape, sharding.AXES)
    sharding.check_divides(mesh, 'training.batch_size', config.training.batch_size)
    found = create_cost(config, create_experiment(config), mesh.size)
    print(cost.report(found._replace(state=sharding.laid_out(mesh, found.state))))


# Checkpoints, data and small change


def restore(
    config: ConfigDict,
    workdir: pathlib.Path,
    experiment: Experiment,
    mesh: Mesh,
    step: int | None = None,
) -> TrainState:
    """The state at `step`, or at config.eval.checkpoint, or the newest one."""
    processes.from_first(lambda: workdirs.check_same_run(workdir, config.to_dict()))
    abstract = abstract_state(config, experiment, mesh)
    with open_checkpoints(config, workdir, read_only=True) as checkpoints:
        return checkpoints.restore(abstract, config.eval.checkpoint if step is None else step)


def open_checkpoints(
    config: ConfigDict, workdir: pathlib.Path, read_only: bool = False
) -> Checkpoints:
    """The checkpoints of a workdir, kept as config.training says."""
    fields = config.training
    policy = Policy(fields.keep_checkpoints, fields.keep_every, fields.keep_best)
    return Checkpoints(workdir / 'checkpoints', None if read_only else policy)


def load_images(config: ConfigDict, split: str) -> loading.Images:
    """The images of a split, as config.data says."""
    fields = config.data
    return loading.load(
        fields.source,
        split,
        fields.image_size,
        fields.channels,
        fields.test_fraction,
        fields.fit,
        fields.data_dir,
        fields.crop_size,
    )


def check_enough(data: loading.Images, batch_size: int) -> None:
    """Raises InputError if there are fewer images than a batch has."""
    if batch_size > len(data):
        raise InputError(f'training.batch_size: {batch_size} is more than all {len(data)} images')


def check_labels(config: ConfigDict, experiment: Experiment, data: loading.Images) -> None:
    """Raises InputError if the first images lack the labels that a classifier learns."""
    if not isinstance(experiment, Classifier):
        return
    labels = data.gather(np.arange(min(len(data), LABELS_CHECKED)))['label']
    classes = config.model.num_classes
    if labels.min() < 0:
        raise InputError(f'data.source: {config.data.source!r} has no labels to classify by')
    if labels.max() >= classes:
        raise InputError(f'model.num_classes: {classes}, and there is a label {labels.max()}')


def first_batch(data: loading.Images, size: int, mesh: Mesh) -> dict[str, jax.Array]:
    """The first images of a split on the devices, repeated if there are too few."""
    rows = batching.own_rows(size, *processes.place())
    return sharding.split(mesh, data.gather(rows % len(data)))


def check_periods(fields: ConfigDict) -> None:
    """Raises InputError unless all that happens in training happens between two dispatches."""
    k = fields.steps_per_dispatch
    periods = 'num_steps', 'log_every', 'eval_every', 'sample_every', 'checkpoint_every'
    for name in (name for name in periods if name in fields):
        if fields[name] % k or fields[name] < 0:
            raise InputError(
                f'training.{name}: {fields[name]} is not a multiple of '
                f'training.steps_per_dispatch, {k}'
            )


def check_batch_sizes(mesh: Mesh, config: ConfigDict, *fields: str) -> None:
    """Raises InputError for the first of these fields that the devices do not divide."""
    for field in fields:
        section, name = field.split('.')
        sharding.check_divides(mesh, field, config[section][name])


def timed(function: Callable, *args) -> tuple[Any, float]:
    """The result, and the seconds it took."""
    started = time.perf_counter()
    return function(*args), time.perf_counter() - started

"""Training, evaluation and sampling of any experiment: loops over steps, clocks and files.

A workdir holds `config.json`, `data.json`, `checkpoints/`, `logs/`, `samples/` and `eval/<step>/`,
and `lock` while something is trained there.
"""

import itertools
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

import applications
from analysis import cost, nans
from choices import InputError, RunError
from datasets import batching
from datasets.stored import Examples
from devices import preemption, processes, sharding
from devices.compiling import Compiled
from devices.preemption import StopRequest
from evaluation import quantities
from evaluation.batchwise import Checkpoint, Found, Measure, OverData
from evaluation.quantities import LOWER
from experiments import images_by_seed, images_together, initial, kinds, programs, run_files
from experiments.experiment import Experiment
from experiments.initial import Initial
from experiments.periodic import Periodic
from published import exchange
from reports import logs, plots, report
from reports.logs import MetricsLog, ProgressLog
from storage import fingerprints, workdirs
from storage.checkpoints import Checkpoints
from training import Metrics, Params, TrainState

WAIT_SECONDS = 2.0  # between looks for a checkpoint that is still to come


def use_cores(config: ConfigDict, num_processes: int) -> None:
    """On a CPU, every core is a device as far as the batches divide; numbers have 64 bits if
    config.training.dtype says so. Before anything else.
    """
    if config.training.get('dtype') == 'float64':
        jax.config.update('jax_enable_x64', True)
    sections = [config[name] for name in ('training', 'eval', 'sampling') if name in config]
    sizes = (section.batch_size for section in sections if 'batch_size' in section)
    sharding.use_cores(*sizes, **config.mesh, num_processes=num_processes)


# Training


def train(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Trains to config.training.num_steps, from the newest checkpoint in `workdir` if there is one.

    The final state is the same, bit for bit, however often the run was stopped and started again.
    """
    fields = config.training
    check_periods(fields)
    check_debugging(config.debug)
    processes.from_first(lambda: run_files.check(workdir))
    mesh = sharding.create_mesh(**config.mesh)
    sharding.check_divides(mesh, 'training.batch_size', fields.batch_size)
    experiment = kinds.create(config, mesh)
    with processes.saying('reading the data'):
        train_data, test_data = (experiment.data(split) for split in ('train', 'test'))
    check_enough(train_data, fields.batch_size)
    programs.abstract_state(experiment, mesh)  # What no network can be is refused here.
    do_what_is_due = Periodic.create(config, experiment, mesh, test_data, workdir)
    is_begun = processes.from_first(lambda: run_files.is_begun(workdir))
    config = initial.settled(config, workdir)
    beginning = None if is_begun else initial.load(config, experiment, mesh)
    recorded = config if beginning is None else initial.named(config, beginning.name)

    with (
        run_files.training(workdir, recorded, {'train': train_data, 'test': test_data}),
        run_files.open_checkpoints(config, workdir) as checkpoints,
    ):
        state = start(config, experiment, checkpoints, mesh, beginning)
        step = int(state.step)
        print(f'devices: {sharding.described(mesh)}')
        print(f'{workdir}: {where(step, fields.num_steps)}', flush=True)
        stream = dispatches(config, train_data, step, mesh)
        if step < fields.num_steps:
            # Not within StopRequest: a signal need not wait for this, since nothing is lost yet.
            first = next_or_leave(stream, state, checkpoints)
            run_steps = training_program(config, experiment, mesh, state, first)
            stream = itertools.chain((first,), stream)
        log = MetricsLog(workdir / 'logs' if processes.is_first() else None, step)
        with StopRequest() as stop:
            do_what_is_due.catch_up(step, state, stop)
            with ProgressLog(log, step, fields.num_steps, fields.log_every) as progress:
                while step < fields.num_steps and not stop.is_due(step):
                    before = time.perf_counter()
                    batches = next_or_leave(stream, state, checkpoints)
                    waited = time.perf_counter() - before
                    state, metrics = run_steps(state, batches)
                    step += fields.steps_per_dispatch
                    progress.add(step, metrics._asdict(), waited)
                    check_skipped(config, progress, checkpoints)
                    do_what_is_due(step, state, progress, checkpoints, stop)
                    checkpoints.check()
                progress.read()
                check_skipped(config, progress, checkpoints)
            if step < fields.num_steps:
                leave(workdir, checkpoints, state, stop.signal)
            checkpoints.wait()  # Without StopRequest a signal would end the program before.
    with processes.saying('writing the report'):
        processes.on_first(show_training, workdir)


def where(step: int, num_steps: int) -> str:
    """What is said of a run that begins, or goes on, at `step`."""
    if step < num_steps:
        return f'step {step} of {num_steps}'
    return (
        f'already at step {step} of {num_steps}: nothing to train; '
        'a larger training.num_steps goes on'
    )


def start(
    config: ConfigDict,
    experiment: Experiment,
    checkpoints: Checkpoints,
    mesh: Mesh,
    beginning: Initial | None,
) -> TrainState:
    """The newest state that is saved, or that before the first step."""
    if checkpoints.steps():
        with processes.saying('reading the checkpoint'):
            return checkpoints.restore(programs.abstract_state(experiment, mesh))
    with processes.saying('making the state to begin with'):
        state = programs.first_state(experiment, mesh, config.seed)
    if beginning is None:
        return state
    print(f'{config.training.init_from}: parameters and averages of step {beginning.step}')
    return state._replace(params=beginning.params, averages=beginning.averages)


def training_program(
    config: ConfigDict, experiment: Experiment, mesh: Mesh, state: TrainState, batches: Any
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Several steps as one program, compiled for a state and batches such as these; with
    config.debug.nans it looks what became of them.
    """
    # To locate a NaN the state before is needed again.
    donate = not config.debug.nans
    run_steps = Compiled('the training step', programs.training_steps(experiment, mesh, donate))
    run_steps.prepare(state, batches)

    def run_or_locate(state, batches):
        after, metrics = run_steps(state, batches)
        if np.any(metrics.skipped):
            raise RunError(nans.locate(experiment.step, state, batches))
        return after, metrics

    return run_or_locate if config.debug.nans else run_steps


def check_skipped(config: ConfigDict, progress: ProgressLog, checkpoints: Checkpoints) -> None:
    """Raises RunError if more updates in a row were skipped than config.training allows."""
    step, count = progress.most_skipped
    if count < config.training.max_skipped:
        return
    checkpoints.wait()
    last = max((known for known in checkpoints.steps() if known <= step - count), default='none')
    fields = workdirs.flatten(config.to_dict())
    causes = [
        f'{name} = {fields[name]} is {fault}'
        for name, fault, unless in FAULTS
        if fields.get(name) not in (None, unless)
    ]
    likely = f'likely causes: {", or ".join(causes)}; ' if causes else ''
    raise RunError(
        f'step {step}: loss or gradient were not finite {count} times in a row '
        f'(training.max_skipped); the last good checkpoint: {last}; {likely}'
        '--config.debug.nans=True finds the operation'
    )


# What makes losses that are not finite: fields, their faults, and the value that has none.
FAULTS = (
    ('optim.lr', 'too high', None),
    ('optim.warmup', 'too short', None),
    ('model.dtype', 'too coarse', 'float32'),
    ('model.num_classes', 'not above every label of the data', 0),
)


def leave(
    workdir: pathlib.Path, checkpoints: Checkpoints, state: TrainState, received: signal.Signals
) -> NoReturn:
    """Saves the state, and ends the program as the signal would."""
    checkpoints.save(state)
    checkpoints.wait()
    print(f'{workdir}: {received.name}; {saved(state)}')
    raise SystemExit(preemption.exit_status(received))


def next_or_leave(
    stream: Iterator[dict[str, jax.Array]], state: TrainState, checkpoints: Checkpoints
) -> dict[str, jax.Array]:
    """What comes next of a stream; if it cannot be read the state is saved, and a RunError says so.

    Of several processes, which would have to save together, one alone may meet the fault: it ends
    all of them.
    """
    try:
        return next(stream)
    except (InputError, OSError) as error:
        if processes.place()[1] > 1 or not int(state.step):
            raise
        checkpoints.save(state)
        checkpoints.wait()
        raise RunError(f'{error}; {saved(state)}') from error


def saved(state: TrainState) -> str:
    """What is said of a state that was saved because training ends before its time."""
    return f'step {state.step} is saved, and the same command goes on from it'


def show_training(workdir: pathlib.Path) -> None:
    """Writes `curves.png` and the report."""
    curves = plots.training_curves(logs.read(workdir / 'logs' / 'metrics.jsonl'))
    plots.save(curves, workdir / 'curves.png')
    print(f'Curves and grids of samples are in {report.write(workdir)}')


def dispatches(
    config: ConfigDict, data: Examples, start: int, mesh: Mesh
) -> Iterator[dict[str, jax.Array]]:
    """Batches from step `start` on, on the devices, stacked by training.steps_per_dispatch."""
    fields = config.training
    place, replacement = processes.place(), fields.replacement
    stream = batching.batches(data, fields.batch_size, config.seed, start, *place, replacement)
    while True:
        group = [next(stream) for _ in range(fields.steps_per_dispatch)]
        stacked = {name: np.stack([batch[name] for batch in group]) for name in group[0]}
        yield sharding.split(mesh, stacked, axis=1)


# Evaluation


def evaluate(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Measures what config.eval asks for, of the checkpoints that it names."""
    check_range(config.eval)
    processes.from_first(lambda: run_files.check(workdir))
    mesh = sharding.create_mesh(**config.mesh)
    sharding.check_divides(mesh, 'eval.batch_size', config.eval.batch_size)
    experiment = kinds.create(config, mesh)
    with processes.saying('reading the data'):
        measures = []
        if config.eval.loss:
            measures.append(test_loss_measure(config, workdir, experiment, mesh))
        measures += experiment.measures(workdir)
        measures += applications.create_measures(config, experiment, mesh)
    found, problems = {}, []
    for wanted in steps(config, workdir):
        state = run_files.restore(config, workdir, experiment, mesh, wanted)
        if not found:
            print(f'devices: {sharding.described(mesh)}', flush=True)
        step = int(state.step)
        directory = workdir / 'eval' / str(step)
        found[step], of_step = evaluate_one(step, state.evaluated, measures, directory)
        problems += [f'step {step}, {problem}' for problem in of_step]
        print(f'step {step}\n{quantities.table(found[step])}')
        with processes.saying('writing the report'):
            processes.on_first(report.write, workdir)
        print(f'Pictures and numbers are in {workdir / "eval"}, and in {workdir / report.NAME}')
    if config.eval.best_by and not problems:
        print(quantities.best(found, config.eval.best_by))
    if problems:
        raise RunError(f'numbers are missing: {"; ".join(problems)}')


def evaluate_one(
    step: int, params: Params, measures: list[Measure], directory: pathlib.Path
) -> tuple[list[quantities.Quantity], list[str]]:
    """Numbers and rates of one checkpoint, which are put in its directory; a line for each thing
    that could not be measured.
    """
    checkpoint = Checkpoint(params, directory, int(fingerprints.checksum(params)))
    numbers, rates, problems = [], [], []
    for measure in measures:
        found = measure(checkpoint)
        are_finite, others = quantities.finite(found.quantities)
        numbers += are_finite
        rates += quantities.finite(found.rates)[0]
        of_measure = [*found.problems, *(f'{label} is not finite' for label in others)]
        for problem in of_measure:
            print(problem, flush=True)
        problems += of_measure
    processes.on_first(quantities.write, directory / 'rates.json', step, rates)
    processes.on_first(quantities.write, directory / 'metrics.json', step, numbers)
    return numbers + rates, problems


def test_loss_measure(
    config: ConfigDict, workdir: pathlib.Path, experiment: Experiment, mesh: Mesh
) -> Measure:
    """The training objective on the whole test split."""

    def loss(params, key, batch):
        return {'loss': experiment.loss(params, key, batch, train=False)}

    over_test_data = OverData(
        name='loss',
        function=sharding.jit(mesh, loss),
        data=run_files.compared(workdir, 'test', experiment.data('test')),
        batch_size=config.eval.batch_size,
        seed=config.seed,
        mesh=mesh,
        # The one field of a network that may change in a workdir.
        depends_on=workdirs.flatten(config.to_dict()).get('model.precision'),
    )

    def measure(checkpoint):
        values = over_test_data(checkpoint)['loss']
        return Found([quantities.mean('test_loss', values, better=LOWER)])

    return measure


def steps(config: ConfigDict, workdir: pathlib.Path) -> Iterator[int | None]:
    """The steps of config.eval, as their checkpoints appear; None is the newest.

    Raises InputError if there are none, and if eval.wait seconds bring no more before the last.
    """
    fields = config.eval
    if not fields.checkpoints:
        yield fields.checkpoint
        return
    processes.from_first(lambda: run_files.check_same_run(workdir, config))
    first, last = fields.checkpoints
    after, since = first - 1, processes.from_first(time.monotonic)
    while after < last:
        with run_files.open_checkpoints(config, workdir, read_only=True) as checkpoints:
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


def check_range(fields: ConfigDict) -> None:
    """Raises InputError for fields of config.eval that name no checkpoints."""
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


# Sampling


def sample(config: ConfigDict, workdir: pathlib.Path, seeds: str | None = None) -> None:
    """Draws images from a checkpoint, to `samples/<step>_<name>.png` and `.npz`; those of `seeds`,
    if these are given, to `samples/<step>_<name>/<seed>.png`.

    What was drawn before an interruption is not drawn again. Samples by one set of settings never
    take the place of those by another: see images_together.free_stem.

    Those that are left out, as their solver stood still or they are not finite, are in neither;
    `index` are the numbers of the others then. Raises RunError after that.
    """
    wanted = None if seeds is None else images_by_seed.parse(seeds)
    processes.from_first(lambda: run_files.check(workdir))
    mesh = sharding.create_mesh(**config.mesh)
    experiment = kinds.create(config, mesh)
    trained_with = processes.from_first(lambda: run_files.kept_classes(workdir))
    drawing = applications.create_drawing(config, experiment, mesh, trained_with)
    if drawing is None:
        raise InputError(f'--mode=sample: experiment {config.experiment!r} draws no images')
    if wanted is not None and drawing.is_bounded and wanted[-1] >= drawing.num:
        raise InputError(f'--seeds: {seeds}; {drawing.name} has images 0 to {drawing.num - 1}')
    sharding.check_divides(mesh, 'sampling.batch_size', drawing.batch_size)
    state = run_files.restore(config, workdir, experiment, mesh)
    print(f'devices: {sharding.described(mesh)}', flush=True)
    of_seed = '' if drawing.seed == config.seed else f'_seed{drawing.seed}'
    stem = workdir / 'samples' / f'{int(state.step):07d}_{drawing.name}{of_seed}'
    checksum = int(fingerprints.checksum(state.evaluated))
    checkpoint = Checkpoint(state.evaluated, workdir / 'samples', checksum)
    if wanted is None:
        images_together.draw(drawing, mesh, checkpoint, workdir, stem)
    else:
        images_by_seed.draw(drawing, mesh, checkpoint, stem, wanted)


# Published checkpoints


def import_checkpoint(config: ConfigDict, workdir: pathlib.Path, path: pathlib.Path) -> None:
    """Makes a workdir of a published checkpoint, as if this project had trained it so far."""
    processes.from_first(lambda: run_files.check(workdir))
    mesh = sharding.create_mesh(**config.mesh)
    values = workdirs.flatten(config.to_dict())
    with processes.saying(f'reading {path}'):
        state, what = exchange.read(path, kinds.create(config, mesh).init, values)
    with (
        processes.saying('saving the checkpoint'),
        run_files.importing(workdir, config),
        run_files.open_checkpoints(config, workdir) as checkpoints,
    ):
        checkpoints.save(sharding.put(state, sharding.by_size(mesh, state)))
    print(f'{workdir}: step {int(state.step)}, {what}')


def export_checkpoint(config: ConfigDict, workdir: pathlib.Path, path: pathlib.Path) -> None:
    """Writes parameters and moving average of a checkpoint under their published names."""
    values = workdirs.flatten(config.to_dict())
    exchange.check_writable(path, values)
    mesh = sharding.create_mesh(**config.mesh)
    state = run_files.restore(config, workdir, kinds.create(config, mesh), mesh)
    params, average = processes.gather((state.params, state.evaluated))
    with processes.saying(f'writing {path}'):
        processes.on_first(exchange.write, path, int(state.step), params, average, values)
    print(f'{path}: step {int(state.step)}, {exchange.content(path)}')


# Before there are devices


def estimate_cost(config: ConfigDict, num_devices: int | None) -> None:
    """Prints what training costs on so many devices (None: those there are); runs nothing."""
    shape = sharding.mesh_shape(num_devices or jax.device_count(), **config.mesh)
    mesh = AbstractMesh(shape, sharding.AXES)
    size = config.training.batch_size
    sharding.check_divides(mesh, 'training.batch_size', size)
    experiment = kinds.create(config)
    with processes.saying('tracing the training step'):
        found = cost.of_training(
            experiment.init, experiment.loss, experiment.batch_shapes, size, mesh.size
        )
    print(cost.report(found._replace(state=sharding.laid_out(mesh, found.state))))


# Data and periods


def check_debugging(fields: ConfigDict) -> None:
    """Raises InputError for config.debug that is not for these processes."""
    if fields.nans and processes.place()[1] > 1:
        raise InputError('debug.nans: True is for one process, which has all arrays whole')


def check_enough(data: Examples, batch_size: int) -> None:
    """Raises InputError if there are fewer examples than a batch has."""
    if batch_size > len(data):
        raise InputError(f'training.batch_size: {batch_size} is more than all {len(data)} examples')


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

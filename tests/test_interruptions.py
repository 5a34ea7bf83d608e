"""What ends a run before its time, and what is there afterwards."""

import errno
import itertools
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

import run_lib
from benchmarks import equivalence, launches
from datasets import batching, image_files, loading
from devices import preemption
from evaluation import batchwise
from experiments import periodic
from reports import logs
from storage import files
from tests import tiny_config
from tests.support import program

CONFIG = '--config=tests/tiny_config.py'
SHORT = CONFIG, '--config.training.num_steps=20', '--config.training.sample_every=0'


def assert_state(workdir, step, expected):
    found = program.arrays(workdir, step)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# Signals


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_a_signal_saves_the_present_step_and_the_same_command_goes_on_from_it(number, tmp_path):
    """No other checkpoint is due before the last."""
    flags = (
        *(CONFIG, '--mode=train', '--config.training.num_steps=200'),
        *(f'--config.training.{name}=0' for name in ('sample_every', 'eval_every')),
        *('--config.training.checkpoint_every=0', '--config.training.log_every=2'),
    )
    whole = *flags[:-2], '--config.training.checkpoint_every=200'
    program.succeed(*whole, f'--workdir={tmp_path / "undisturbed"}')
    workdir = tmp_path / 'stopped'
    process = subprocess.Popen(
        program.command(*flags, f'--workdir={workdir}'),
        cwd=program.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = workdir / 'logs' / 'metrics.jsonl'
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    said, bars = process.communicate()
    assert process.returncode == 128 + number
    assert 'Traceback' not in bars
    step = int(re.search(rf'{number.name}; step (\d+) is saved, and the same command', said)[1])
    assert 0 < step < 200
    assert [path.name for path in (workdir / 'checkpoints').iterdir()] == [str(step)]

    said = program.succeed(*whole, f'--workdir={workdir}')
    assert f'step {step} of 200' in said
    assert_state(workdir, 200, program.arrays(tmp_path / 'undisturbed', 200))


# Whoever started the tests may have told them to ignore SIGHUP, as nohup does.
IN_A_TERMINAL = (
    'import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); '
    'signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])'
)


@pytest.mark.slow
def test_a_terminal_that_closes_costs_nothing_that_was_done(tmp_path):
    """The kernel sends SIGHUP, and what is written to the terminal from then on is an error."""
    terminal, stream = pty.openpty()
    flags = *SHORT[:1], '--mode=train', f'--workdir={tmp_path}', '--config.training.num_steps=20000'
    periods = [f'--config.training.{name}_every=0' for name in ('sample', 'eval', 'checkpoint')]
    process = subprocess.Popen(
        [sys.executable, '-c', IN_A_TERMINAL, *program.command(*flags, *periods)],
        cwd=program.ROOT,
        stdin=stream,
        stdout=stream,
        stderr=stream,
        start_new_session=True,
    )
    os.close(stream)
    metrics = tmp_path / 'logs' / 'metrics.jsonl'
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    os.close(terminal)
    assert process.wait(120) == 129
    (checkpoint,) = (tmp_path / 'checkpoints').iterdir()
    assert 0 < int(checkpoint.name) < 20000


@pytest.mark.parametrize('mode', ['eval', 'sample'])
@pytest.mark.slow
def test_while_a_program_is_compiled_ctrl_c_ends_it_in_one_line(mode, workdir):
    """And keeps the batches that are done; see tests of run_lib."""
    process = subprocess.Popen(
        program.command(*SHORT, f'--mode={mode}', f'--workdir={workdir}'),
        cwd=program.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert any(line.startswith('compiling') for line in iter(process.stdout.readline, ''))
    process.send_signal(signal.SIGINT)
    said, bars = process.communicate(timeout=120)
    assert process.returncode == 130
    kept = {'eval': 'what is measured is kept', 'sample': 'what is drawn is kept'}[mode]
    assert said.splitlines()[-1] == f'SIGINT: {kept}, and the same command goes on from it'
    assert 'Traceback' not in bars


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_of_two_processes_both_stop_after_the_same_step_if_one_is_told_to(number, tmp_path):
    """Two steps a dispatch, so that the step that JAX chooses may lie within one."""
    periods = 'checkpoint_every', 'steps_per_dispatch', 'log_every'
    fields = {f'training.{name}': 2 for name in periods} | {'training.eval_every': 0}
    command = equivalence.training_command(tmp_path, 10_000, **fields)
    first, second = launches.start(launches.Layout(2, 1, 2), *command)
    while not (tmp_path / 'checkpoints' / '2').exists():
        assert first.poll() is second.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    second.send_signal(number)
    for process, status in ((first, 143), (second, 128 + number)):
        process.communicate(timeout=120)
        assert process.returncode == status
    assert all(path.name.isdecimal() for path in (tmp_path / 'checkpoints').iterdir())


def test_a_checkpoint_that_is_due_is_whole_before_its_samples_are_drawn(tmp_path, monkeypatch):
    """They may take longer than a scheduler waits; the same command then draws them."""
    at_drawing = []

    class KilledError(Exception):
        pass

    def draw(*_, **__):
        at_drawing.append(sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()))
        raise KilledError

    flags = CONFIG, '--mode=train', f'--workdir={tmp_path}', '--config.training.num_steps=20'
    with monkeypatch.context() as patch:
        patch.setattr(batchwise.Draws, '__call__', draw)
        with pytest.raises(KilledError):
            program.call(*flags)
    assert at_drawing == [['10', '20']]
    assert [row['step'] for row in logs.read(tmp_path / 'logs' / 'metrics.jsonl')][-1] == 20
    program.call(*flags)
    assert (tmp_path / 'samples' / '0000020.png').exists()


def test_after_a_signal_no_picture_is_begun(tmp_path, monkeypatch, capsys):
    """Though one is due after the dispatch that was under way."""
    draw = periodic.Periodic._draw

    def stop_and_draw(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3 * preemption.SAME_REQUEST_SECONDS)
        draw(*args)

    monkeypatch.setattr(periodic.Periodic, '_draw', stop_and_draw)
    fields = {'training.sample_every': 4, 'training.num_steps': 20}
    with pytest.raises(SystemExit):
        program.call(
            *(CONFIG, '--mode=train', f'--workdir={tmp_path}'),
            *(f'--config.{name}={value}' for name, value in fields.items()),
        )
    said = capsys.readouterr().out
    assert f'{tmp_path}: SIGTERM; step 4 is saved' in said
    assert 'drawing' not in said
    assert not (tmp_path / 'samples' / '0000004.png').exists()


def test_after_a_signal_no_further_batch_of_a_picture_is_drawn(tmp_path, monkeypatch, capsys):
    """Of a step that is not saved yet: it is then."""
    drawn, of_indices = [], batchwise.Draws.of_indices

    def draw(*args):
        found = of_indices(*args)
        drawn.append(len(found['pixels']))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3 * preemption.SAME_REQUEST_SECONDS)
        return found

    monkeypatch.setattr(batchwise.Draws, 'of_indices', draw)
    fields = {'sampling.batch_size': 1, 'training.sample_every': 4, 'training.num_steps': 20}
    with pytest.raises(SystemExit) as ended:
        program.call(
            *(CONFIG, '--mode=train', f'--workdir={tmp_path}'),
            *(f'--config.{name}={value}' for name, value in fields.items()),
        )
    assert ended.value.code == 143
    assert drawn == [1]
    assert f'{tmp_path}: SIGTERM; step 4 is saved' in capsys.readouterr().out
    assert (tmp_path / 'checkpoints' / '4').exists()


def test_a_signal_while_the_last_checkpoint_is_saved_does_not_cost_it(tmp_path, monkeypatch):
    """No picture of the last step waits for it, and it is saved in the background."""
    temporary = ocp.path.atomicity.AtomicRenameTemporaryPath
    finalize, ended = temporary.finalize, []

    def finalize_late(*args, **options):
        monkeypatch.setattr(temporary, 'finalize', finalize)
        time.sleep(2)  # Until the training has nothing more to do.
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(3 * preemption.SAME_REQUEST_SECONDS)
        return finalize(*args, **options)

    monkeypatch.setattr(temporary, 'finalize', finalize_late)
    monkeypatch.setattr(preemption, 'end_now', lambda *why: ended.append(why))
    flags = *SHORT[:1], '--mode=train', f'--workdir={tmp_path}', '--config.training.num_steps=4'
    program.call(*flags, '--config.training.sample_every=0')
    assert ended == []
    assert (tmp_path / 'checkpoints' / '4').exists()


@pytest.mark.slow
def test_ctrl_c_that_is_for_a_script_does_not_end_what_it_runs_in_the_background():
    """Its shell has it ignored there."""
    in_background = ['sh', '-c', 'trap "" INT; exec "$@"', 'sh']
    process = subprocess.Popen(
        [*in_background, *program.command(CONFIG, '--mode=cost')],
        cwd=program.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None:
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert 'parameters' in process.stdout.read()


# Two commands in one workdir


@pytest.mark.slow
def test_a_second_training_is_refused_and_an_evaluation_beside_it_is_not(tmp_path):
    flags = CONFIG, f'--workdir={tmp_path}', '--config.training.num_steps=20000'
    flags += tuple(f'--config.training.{name}_every=0' for name in ('sample', 'eval'))
    process = program.training(tmp_path, *flags)
    refused = program.refusal(*flags, '--mode=train')
    assert f'{tmp_path} is in use by process {process.pid} of ' in refused
    # Other processes than the first hear of it too.
    fields = {'training.num_steps': 20_000, 'training.sample_every': 0, 'training.eval_every': 0}
    command = equivalence.training_command(tmp_path, 20_000, **fields)
    for other in launches.start(launches.Layout(2, 1, 2), *command):
        said = other.communicate(timeout=120)[1]
        assert other.returncode == 1
        assert f'is in use by process {process.pid} of ' in said
    program.call(*flags, '--mode=eval', '--config.eval.bpd=False', '--config.eval.samplers=()')
    assert list(tmp_path.glob('eval/*/metrics.json'))
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    assert not (tmp_path / 'lock').exists()


@pytest.mark.slow
def test_a_training_follows_one_that_was_killed(tmp_path):
    flags = *SHORT, '--mode=train', f'--workdir={tmp_path}'
    process = program.training(tmp_path, *flags, '--config.training.num_steps=20000')
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / 'lock').exists()
    program.call(*flags)
    assert not (tmp_path / 'lock').exists()


@pytest.mark.slow
def test_two_evaluations_at_the_same_time_end_with_the_numbers_of_one(workdir, tmp_path):
    flags = *SHORT, '--mode=eval', '--config.eval.samplers=()'
    numbers = []
    for name, num in (('alone', 1), ('together', 2)):
        copy = shutil.copytree(workdir, tmp_path / name)
        launches.finish(
            [
                subprocess.Popen(
                    program.command(*flags, f'--workdir={copy}'),
                    cwd=program.ROOT,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for _ in range(num)
            ]
        )
        numbers.append((copy / 'eval' / '20' / 'metrics.json').read_text())
        assert not list(copy.rglob('.draft*'))
    assert numbers[0] == numbers[1]


# Damaged checkpoints


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A finished run of 20 steps."""
    path = tmp_path_factory.mktemp('run')
    program.call(*SHORT, '--mode=train', f'--workdir={path}')
    return path


@pytest.fixture(scope='module')
def final(workdir):
    """Its last state."""
    return program.arrays(workdir, 20)


@pytest.fixture
def damaged(workdir, final):
    """That run, whose newest checkpoint lacks a file until the test is done."""
    file = workdir / 'checkpoints' / '20' / 'default' / 'manifest.ocdbt'
    content = file.read_bytes()
    file.unlink()
    yield workdir
    if not file.exists():
        file.write_bytes(content)


def test_evaluation_takes_the_checkpoint_before_a_damaged_one(damaged, capsys):
    flags = '--config.eval.bpd=False', '--config.eval.samplers=()'
    program.call(*SHORT, '--mode=eval', f'--workdir={damaged}', *flags)
    assert (
        'checkpoints/20 is damaged and cannot be read; using step 10\n' in capsys.readouterr().out
    )
    assert (damaged / 'eval' / '10' / 'metrics.json').exists()


def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(damaged, final, capsys):
    """And saves the step again, to the same bits."""
    program.call(*SHORT, '--mode=train', f'--workdir={damaged}')
    said = capsys.readouterr().out
    assert 'renamed 20.damaged; using step 10' in said
    assert 'step 10 of 20' in said
    assert_state(damaged, 20, final)


# Data that cannot be read


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Images as a large folder has them: they are decoded when they are read, and not before."""
    monkeypatch.setattr(image_files, 'VERIFY_BYTES', 0)
    (tmp_path / 'images').mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / 'images' / f'{i:03d}.png')
    return tmp_path / 'images'


@pytest.mark.slow
def test_an_image_that_is_broken_costs_nothing_that_was_done(folder, tmp_path):
    """Neither checkpoint nor evaluation is due before the last step, and the file is mended."""
    flags = (
        *(*SHORT, '--mode=train', f'--config.data.source=folder:{folder}'),
        *(f'--config.training.{name}_every=20' for name in ('eval', 'checkpoint')),
    )
    # The order of the images is that of another run; 8 are in a batch.
    images = loading.load(f'folder:{folder}', 'train', (8, 8), 1)
    stream = batching.stream(images, 8, tiny_config.get_config().seed)
    last = batching.batch_at(stream, 15)['image'][0, :, :, 0]
    (path,) = (path for path in folder.iterdir() if (np.array(Image.open(path)) == last).all())
    whole = path.read_bytes()
    path.write_bytes(whole[:50] + bytes(8) + whole[58:])

    refused = program.refusal(*flags, f'--workdir={tmp_path / "run"}')
    said = rf'error: .*{path.name} .*; step (\d+) is saved, and the same command goes on from it'
    step = int(re.fullmatch(said, refused)[1])
    assert step == 14  # The dispatch of steps 15 and 16 lacks its data.
    assert [path.name for path in (tmp_path / 'run' / 'checkpoints').iterdir()] == ['14']
    path.write_bytes(whole)
    program.call(*flags, f'--workdir={tmp_path / "run"}')
    program.call(*flags, f'--workdir={tmp_path / "undisturbed"}')
    assert_state(tmp_path / 'run', 20, program.arrays(tmp_path / 'undisturbed', 20))


@pytest.mark.slow
def test_an_image_that_is_broken_at_the_first_step_leaves_no_checkpoint(folder, tmp_path):
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:50] + bytes(8) + path.read_bytes()[58:])
    refused = program.refusal(
        *SHORT,
        '--mode=train',
        f'--config.data.source=folder:{folder}',
        f'--workdir={tmp_path / "a"}',
    )
    assert 'is not an image that can be decoded' in refused
    assert 'is saved' not in refused
    assert not list(tmp_path.glob('a/checkpoints/*'))


# A full disk


def test_a_full_disk_ends_training_in_one_line(tmp_path):
    """No file may have more than 30,000 bytes: logs fit, and a checkpoint does not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        refused = program.refusal(*SHORT, '--mode=train', f'--workdir={tmp_path}')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (
        'a checkpoint could not be saved (File too large); those of steps [] are whole' in refused
    )


@pytest.mark.parametrize('room_for', [0, 1, 2])
@pytest.mark.slow
def test_a_disk_too_full_for_the_log_ends_training_in_one_line(
    room_for, tmp_path, monkeypatch, capfd
):
    """The first row of the TensorBoard file is that of the start."""
    flush, calls = logs.EventsWriter.flush, itertools.count()

    def flush_if_there_is_room(events):
        if next(calls) >= room_for:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return flush(events)

    monkeypatch.setattr(logs.EventsWriter, 'flush', flush_if_there_is_room)
    refused = program.refusal(*SHORT, '--mode=train', f'--workdir={tmp_path}')
    assert re.match(r'error: \S+/logs\S* cannot be written: No space left on device; what', refused)
    assert 'Traceback' not in capfd.readouterr().err


@pytest.mark.parametrize('mode', ['train', 'eval', 'sample'])
def test_a_workdir_that_cannot_be_written_to_is_refused_before_there_is_work_to_lose(
    mode, workdir, monkeypatch
):
    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.tempfile, 'TemporaryFile', refuse)
    monkeypatch.setattr(run_lib.kinds, 'create', None)
    refused = program.refusal(*SHORT, f'--mode={mode}', f'--workdir={workdir}')
    assert refused == (
        f'error: --workdir: nothing can be written to {workdir}: Read-only file system'
    )


@pytest.mark.slow
def test_an_import_that_a_full_disk_has_ended_is_done_by_the_same_command(tmp_path):
    """No file may have more than 30,000 bytes at first."""
    flags = (
        *('--config=tests/published_config.py', '--mode=import', f'--workdir={tmp_path}'),
        '--checkpoint=tests/data/published_ncsnpp_ve.pth',
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        assert 'a checkpoint could not be saved (File too large)' in program.refusal(*flags)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    program.call(*flags)
    assert 'has checkpoints already' in program.refusal(*flags)


def test_an_import_that_is_interrupted_leaves_nothing_that_looks_like_a_run(tmp_path, monkeypatch):
    """Training there would begin at random parameters."""

    def interrupt(*_):
        raise KeyboardInterrupt

    flags = '--mode=import', '--checkpoint=tests/data/published_ncsnpp_ve.pth'
    monkeypatch.setattr(run_lib.Checkpoints, 'save', interrupt)
    with pytest.raises(KeyboardInterrupt):
        program.call('--config=tests/published_config.py', f'--workdir={tmp_path}', *flags)
    assert not (tmp_path / 'config.json').exists()
    refused = program.refusal('--mode=train', f'--workdir={tmp_path}')
    assert f'none given, and {tmp_path} has no config.json to take' in refused


def test_what_no_other_part_says_of_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/tmp/anything')

    monkeypatch.setattr(run_lib.kinds, 'create', refuse)
    refused = program.refusal(*SHORT, '--mode=train', f'--workdir={tmp_path}')
    assert refused == 'error: /tmp/anything: No space left on device'


# Numbers that are not finite

DIVERGING = '--config.optim.lr=1e30', '--config.optim.warmup=0', '--config.training.max_skipped=4'


@pytest.mark.slow
def test_training_that_diverges_stops_and_says_where_and_why(tmp_path):
    """The first update makes parameters with which there is no finite loss."""
    flags = *SHORT, '--mode=train', f'--workdir={tmp_path}', *DIVERGING
    refused = program.refusal(*flags, '--config.training.checkpoint_every=4')
    assert re.match(
        r'error: step 8: loss or gradient were not finite 7 times in a row '
        r'\(training.max_skipped\); the last good checkpoint: none; likely causes: optim.lr = 1e',
        refused,
    )
    # The count is part of the state: it goes on when the run is started again.
    again = program.refusal(*flags, '--config.training.checkpoint_every=4')
    assert re.match('error: step 12: loss or gradient were not finite 11 times in a row', again)


@pytest.mark.slow
def test_the_operation_that_is_not_finite_is_found(tmp_path):
    flags = '--mode=train', f'--workdir={tmp_path}', '--config.debug.nans=True'
    refused = program.refusal(*SHORT, *flags, *DIVERGING)
    assert re.match(
        r'error: step 2: invalid value \((inf|nan)\) encountered in \w+, at \w+\.py:\d+ \(\w+\)$',
        refused,
    )

"""What ends a run before its time, and what is there afterwards."""

import re
import resource
import signal
import subprocess
import time

import numpy as np
import pytest

from benchmarks import equivalence, launches
from devices import preemption
from tests.support import program

CONFIG = '--config=tests/tiny_config.py'
SHORT = CONFIG, '--config.training.num_steps=20', '--config.training.sample_every=0'


def assert_state(workdir, step, expected):
    found = program.arrays(workdir, step)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# SIGTERM


@pytest.mark.slow
def test_sigterm_saves_the_present_step_and_the_same_command_goes_on_from_it(tmp_path):
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
        stderr=subprocess.DEVNULL,
        text=True,
    )
    metrics = workdir / 'logs' / 'metrics.jsonl'
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == preemption.EXIT_STATUS == 143
    step = int(re.search(r'SIGTERM; step (\d+) is saved, and the same command', said)[1])
    assert 0 < step < 200
    assert [path.name for path in (workdir / 'checkpoints').iterdir()] == [str(step)]

    said = program.succeed(*whole, f'--workdir={workdir}')
    assert f'step {step} of 200' in said
    assert_state(workdir, 200, program.arrays(tmp_path / 'undisturbed', 200))


@pytest.mark.slow
def test_of_two_processes_both_stop_after_the_same_step_if_one_is_told_to(tmp_path):
    """Two steps a dispatch, so that the step that JAX chooses may lie within one."""
    periods = 'checkpoint_every', 'steps_per_dispatch', 'log_every'
    fields = {f'training.{name}': 2 for name in periods} | {'training.eval_every': 0}
    command = equivalence.training_command(tmp_path, 10_000, **fields)
    first, second = launches.start(launches.Layout(2, 1, 2), *command)
    while not (tmp_path / 'checkpoints' / '2').exists():
        assert first.poll() is second.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    second.send_signal(signal.SIGTERM)
    for process in (first, second):
        process.communicate(timeout=120)
        assert process.returncode == preemption.EXIT_STATUS
    assert all(path.name.isdecimal() for path in (tmp_path / 'checkpoints').iterdir())


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


# Numbers that are not finite

DIVERGING = '--config.optim.lr=1e30', '--config.optim.warmup=0', '--config.training.max_skipped=4'


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

"""The lock on a workdir: one process has it, and whatever ends that gives it back."""

import json
import os
import signal
import subprocess
import sys

import pytest

from choices import InputError
from storage import locks
from storage.locks import Lock
from tests.support import program

# Takes the lock and says so; ends with its input.
HOLD = """
import pathlib, sys
from storage.locks import Lock
Lock(pathlib.Path(sys.argv[1])).take()
print('taken', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'run' / 'lock'


@pytest.fixture
def holder(path):
    """Another process that has the lock."""
    command = [sys.executable, '-c', HOLD, str(path)]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    with subprocess.Popen(command, cwd=program.ROOT, text=True, **pipes) as process:
        assert process.stdout.readline() == 'taken\n'
        yield process
        process.kill()


@pytest.fixture
def hurried(monkeypatch):
    """Seconds become hundredths."""
    for name in ('TOUCH_SECONDS', 'WATCH_SECONDS', 'LOOK_SECONDS'):
        monkeypatch.setattr(locks, name, getattr(locks, name) / 100)


def leave(path, **holder):
    """What a process leaves that has ended without removing its lock."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({'host': 'elsewhere', 'process': 12, **holder}))


def test_a_lock_is_a_file_for_as_long_as_it_is_held(path):
    lock = Lock(path)
    for _ in range(2):
        lock.take()
        assert json.loads(path.read_text())['process'] == os.getpid()
        lock.release()
        assert not path.exists()
    lock.release()


def test_another_process_is_refused_with_the_name_of_the_first(path, holder):
    expected = rf'^--workdir: {path.parent} is in use by process {holder.pid} of \S+, which trains'
    with pytest.raises(InputError, match=expected):
        Lock(path).take()
    assert json.loads(path.read_text())['process'] == holder.pid


def test_a_process_that_was_killed_is_followed_at_once(path, holder, capsys, monkeypatch):
    monkeypatch.setattr(locks, '_is_touched', None)  # Nobody waits.
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock = Lock(path)
    lock.take()
    said = capsys.readouterr().out
    assert f'process {holder.pid} of ' in said
    assert 'left it behind, and is gone; taken over' in said
    lock.release()


@pytest.mark.usefixtures('hurried')
def test_of_another_machine_a_lock_that_nobody_touches_is_taken_over(path, capsys):
    leave(path, machine='another')
    lock = Lock(path)
    lock.take()
    assert 'process 12 of elsewhere left it behind' in capsys.readouterr().out
    lock.release()


@pytest.mark.usefixtures('hurried')
@pytest.mark.parametrize('flock', ['unseen', 'missing'])
def test_a_lock_that_is_touched_is_respected_where_file_systems_tell_of_no_locks(
    path, flock, monkeypatch
):
    """Two machines: only the first sees its own lock of the system."""
    first, machine = Lock(path), locks._machine
    if flock == 'unseen':
        monkeypatch.setattr(locks.fcntl, 'flock', lambda *_: None)
    else:
        monkeypatch.setattr(locks.fcntl, 'flock', unsupported)
    first.take()
    if flock == 'unseen':
        monkeypatch.setattr(locks, '_machine', lambda: 'another')
    with pytest.raises(InputError, match=f'is in use by process {os.getpid()} of'):
        Lock(path).take()
    monkeypatch.setattr(locks, '_machine', machine)
    first.release()
    assert not path.exists()


def unsupported(*_):
    raise OSError('no locks')


@pytest.mark.usefixtures('hurried')
@pytest.mark.parametrize('content', ['', '{"host": ', '[1]'])
def test_a_lock_that_says_nothing_is_taken_over(path, content):
    path.parent.mkdir()
    path.write_text(content)
    lock = Lock(path)
    lock.take()
    assert json.loads(path.read_text())['process'] == os.getpid()
    lock.release()


def test_a_lock_that_is_another_ones_by_now_is_not_removed(path):
    """After its file was removed by hand."""
    first, second = Lock(path), Lock(path)
    first.take()
    path.unlink()
    second.take()
    first.release()
    assert path.exists()
    second.release()
    assert not path.exists()

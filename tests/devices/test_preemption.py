"""Signals that ask a run to stop."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from devices import preemption
from devices.preemption import Listener, StoppedError, StopRequest
from tests.support import program


@pytest.fixture(autouse=True)
def signals_are_heeded():
    """Whoever started the tests may have told them to ignore these, as nohup does."""
    before = [signal.signal(each, signal.SIG_DFL) for each in preemption.STOPPING]
    yield
    for each, handler in zip(preemption.STOPPING, before, strict=True):
        signal.signal(each, handler)


def send(number):
    """Signals are heard in a thread."""
    os.kill(os.getpid(), number)
    time.sleep(3 * preemption.SAME_REQUEST_SECONDS)


# In training


@pytest.mark.parametrize('number', preemption.STOPPING)
def test_a_signal_is_noted_and_handled_as_before_afterwards(number, capsys):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.is_due(1)
        stop.check()
        send(number)
        assert stop.is_due(2)
        assert stop.is_due(3)
        with pytest.raises(StoppedError):
            stop.check()
        assert stop.signal == number
    assert signal.getsignal(number) == before
    assert capsys.readouterr().out == (
        f'{number.name}: training ends after what is under way, and is saved; another Ctrl-C ends '
        'it at once, without what is not saved yet\n'
    )


def test_the_first_of_two_signals_counts():
    """A terminal that closes sends SIGHUP, and a scheduler may send SIGTERM as well."""
    with StopRequest() as stop:
        for number in (signal.SIGHUP, signal.SIGTERM):
            send(number)
        assert preemption.exit_status(stop.signal) == 129


def test_a_signal_that_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest() as stop:
        send(signal.SIGHUP)
        assert not stop.is_due(1)


def test_a_key_that_is_held_is_heard_before_it_is_let_go():
    """Signals follow each other faster than two requests do."""
    received = []
    with Listener(received.append, [signal.SIGINT]):
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(preemption.SAME_REQUEST_SECONDS / 5)
        heard = list(received)
    assert heard


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP])
def test_of_several_processes_one_that_is_to_stop_tells_the_service_of_jax(number, monkeypatch):
    """The service has SIGTERM."""
    received = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    monkeypatch.setattr(preemption.jax, 'process_count', lambda: 2)
    monkeypatch.setattr(preemption.multihost_utils, 'reached_preemption_sync_point', bool)
    with StopRequest() as stop:
        send(number)
        assert received == [signal.SIGTERM]
        stop.check()  # Until all have agreed.
        assert stop.is_due(1)
        assert stop.signal == number


# What ends at once: a process whose main thread is in a function of C, as that which compiles is,
# and so runs no handler of Python.

WAITING = """
import ctypes, signal
from devices.preemption import StopRequest, ending_at_once
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
stop = StopRequest()
with {within}:
    print('ready', flush=True)
    # Or else the function would return.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    ctypes.CDLL(None).sleep(60)
"""


def ended(within, numbers):
    """Exit status and lines of a process that gets these signals."""
    process = subprocess.Popen(
        [sys.executable, '-c', WAITING.format(within=within)],
        cwd=program.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout.readline() == 'ready\n'
    time.sleep(0.2)  # Until it is in that function.
    for number in numbers:
        process.send_signal(number)
        time.sleep(5 * preemption.SAME_REQUEST_SECONDS)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said.splitlines()


@pytest.mark.parametrize('number', preemption.STOPPING)
def test_where_nothing_is_lost_a_signal_ends_the_program_at_once_in_one_line(number):
    found = ended("ending_at_once('what is drawn is kept')", [number])
    assert found == (128 + number, [f'{number.name}: what is drawn is kept'])


def test_a_second_ctrl_c_ends_training_at_once():
    status, lines = ended('stop', [signal.SIGINT, signal.SIGINT])
    assert status == 130
    assert lines == [
        'SIGINT: training ends after what is under way, and is saved; another Ctrl-C ends it at '
        'once, without what is not saved yet',
        'SIGINT: ended without waiting; what was saved before is kept',
    ]


def test_while_all_is_saved_the_first_signal_ends_training_at_once():
    found = ended("stop, stop.while_saved('step 3 is saved')", [signal.SIGTERM])
    assert found == (143, ['SIGTERM: step 3 is saved'])


# Terminals that are gone


def test_what_is_written_to_a_terminal_that_is_gone_is_no_error(monkeypatch):
    terminal, stream = pty.openpty()
    monkeypatch.setattr(preemption, 'STANDARD_STREAMS', (stream,))
    preemption.silence_closed_terminals()
    os.write(stream, b'seen')
    assert os.read(terminal, 4) == b'seen'
    os.close(terminal)
    with pytest.raises(OSError, match='Input/output error'):
        os.write(stream, b'lost')
    preemption.silence_closed_terminals()
    os.write(stream, b'lost')
    os.close(stream)

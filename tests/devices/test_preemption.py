"""Signals that ask a run to stop."""

import os
import pty
import signal

import pytest

from devices import preemption
from devices.preemption import StopRequest


@pytest.fixture(autouse=True)
def hang_ups_are_heeded():
    """Whoever started the tests may have told them to ignore these, as nohup does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize('number', preemption.STOPPING)
def test_a_signal_is_noted_and_handled_as_before_afterwards(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.is_due(1)
        os.kill(os.getpid(), number)
        assert stop.is_due(2)
        assert stop.is_due(3)
        assert stop.signal == number
    assert signal.getsignal(number) == before


def test_the_first_of_two_signals_counts():
    """A terminal that closes sends SIGHUP, and a scheduler may send SIGTERM as well."""
    with StopRequest() as stop:
        for number in (signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert preemption.exit_status(stop.signal) == 129


def test_a_signal_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_due(1)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_of_several_processes_one_that_is_hung_up_tells_the_service_of_jax(monkeypatch):
    """The service has SIGTERM."""
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    monkeypatch.setattr(preemption.jax, 'process_count', lambda: 2)
    try:
        with StopRequest():
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


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

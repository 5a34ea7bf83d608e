"""Being told to stop: SIGINT, which Ctrl-C sends, SIGTERM, which pods and job schedulers send some
seconds before they kill, and SIGHUP, which a terminal sends as it closes.

A run that stops for one exits as one that it killed: a scheduler then knows that there is more to
do, and `train && evaluate` evaluates nothing half done.

Python runs handlers of signals in its main thread alone, and not while that waits for a compiler or
a device. So what is done for a signal is done in a thread of its own, at once.
"""

import contextlib
import errno
import os
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import jax
from jax.experimental import multihost_utils

from devices import leftovers, processes

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STANDARD_STREAMS = (1, 2)  # file descriptors of stdout and stderr
# Within so many seconds the same signal is the same request: `timeout -s INT`, for one, sends it to
# a process and to its group.
SAME_REQUEST_SECONDS = 0.1


# Hearing of signals


class Listener:
    """Within this context `receive` is called for each signal of `signals`, in a thread.

    A signal that is ignored, as `nohup` has SIGHUP, stays so.
    """

    def __init__(
        self, receive: Callable[[signal.Signals], None], signals: Iterable[signal.Signals]
    ):
        self._receive, self._signals = receive, signals
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> 'Listener':
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        # To this Python writes the number of a signal the moment it arrives.
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for each in self._signals:
            if signal.getsignal(each) != signal.SIG_IGN:
                self._handlers[each] = signal.signal(each, lambda *_: None)
        self._is_left = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        for each, handler in self._handlers.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._is_left.set()
        os.close(self._write_end)
        self._thread.join()
        os.close(self._read_end)

    def _listen(self) -> None:
        while numbers := os.read(self._read_end, 64):
            # No longer, or else a key that is held would be heard when it is let go.
            self._is_left.wait(SAME_REQUEST_SECONDS)
            if select.select([self._read_end], [], [], 0)[0]:
                numbers += os.read(self._read_end, 64)
            for number in dict.fromkeys(numbers):
                if number in self._handlers:
                    self._receive(signal.Signals(number))


@contextlib.contextmanager
def ending_at_once(why: str) -> Iterator[None]:
    """Within it a signal ends the program at once, with a line that says `why` it may."""
    with Listener(lambda received: end_now(received, why), STOPPING):
        yield


def end_now(received: signal.Signals, why: str) -> NoReturn:
    """Ends the program in one line, whatever its other threads are at, and removes what they leave:
    see leftovers.py.
    """
    if received == signal.SIGHUP:
        silence_closed_terminals()
    with contextlib.suppress(OSError):  # Whoever read it may be gone.
        if sys.stderr.isatty():
            print(file=sys.stderr, flush=True)  # The line so far is that of a bar, and ^C.
        print(f'{received.name}: {why}', flush=True)
    leftovers.remove_all()
    os._exit(exit_status(received))


def exit_status(received: signal.Signals) -> int:
    """That of a process which a signal has killed, as shells tell it."""
    return 128 + received


# Saving first


class StoppedError(Exception):
    """Something was not done to its end, because there was a signal."""


class StopRequest:
    """Within this context a signal ends nothing, but the first one is noted, and a line says so. A
    SIGINT after that, from somebody who does not want to wait, ends the program at once.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None  # the one that is to be heeded
        self._received: signal.Signals | None = None  # by this process, before all have agreed
        self._saved: str | None = None  # what is said of the state while all of it is saved
        self._asked: int | None = None  # the last step that was asked about

    def __enter__(self) -> 'StopRequest':
        # Of several processes, which stop after the same step, JAX's service has SIGTERM.
        is_one = jax.process_count() == 1
        here = [each for each in STOPPING if is_one or each != signal.SIGTERM]
        self._listener = Listener(self._receive, here)
        self._listener.__enter__()
        return self

    def __exit__(self, *_) -> None:
        self._listener.__exit__()

    @contextlib.contextmanager
    def while_saved(self, what: str) -> Iterator[None]:
        """Within it nothing is lost by an end: the first signal ends the program at once, with the
        line `what`, unless other processes are to stop with this one.
        """
        self._saved = what if jax.process_count() == 1 else None
        try:
            yield
        finally:
            self._saved = None

    def check(self) -> None:
        """Raises StoppedError if there was a signal; of several processes, once all stop for it."""
        if self.signal is not None:
            raise StoppedError

    def is_due(self, step: int) -> bool:
        """Whether to stop after `step`: the same answer in all processes, which all have to ask."""
        if jax.process_count() > 1 and self._is_agreed(step):
            self.signal = self._received or signal.SIGTERM
        return self.signal is not None

    def _receive(self, received: signal.Signals) -> None:
        if received == signal.SIGHUP:
            silence_closed_terminals()
        if self._received is not None:
            if received == signal.SIGINT:
                end_now(received, 'ended without waiting; what was saved before is kept')
            return
        if self._saved is not None:
            end_now(received, self._saved)
        processes.say(
            f'{received.name}: training ends after what is under way, and is saved; another Ctrl-C '
            'ends it at once, without what is not saved yet'
        )
        self._received = received
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.signal = received

    def _is_agreed(self, step: int) -> bool:
        # JAX's service chooses one step, the next of the process that is furthest, and says yes to
        # no other: steps between two dispatches are asked about as well.
        steps = range(step if self._asked is None else self._asked + 1, step + 1)
        self._asked = step
        return any([multihost_utils.reached_preemption_sync_point(each) for each in steps])


# Terminals that are gone


def silence_closed_terminals() -> None:
    """What is written to a terminal that is gone is lost from here on, and is no error: there is
    still a checkpoint to save.
    """
    for stream in STANDARD_STREAMS:
        with contextlib.suppress(OSError):
            if _is_closed_terminal(stream):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)


def _is_closed_terminal(stream: int) -> bool:
    try:
        termios.tcgetattr(stream)
    except termios.error as error:
        return error.args[0] == errno.EIO  # ENOTTY of files and pipes.
    return False

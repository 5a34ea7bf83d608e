"""Being told to stop: SIGTERM, which pods and job schedulers send some seconds before they kill,
and SIGHUP, which a terminal sends as it closes.

A run that stops for one exits as one that it killed: a scheduler then knows that there is more to
do, and `train && evaluate` evaluates nothing half done.
"""

import contextlib
import errno
import os
import signal
import termios
from typing import Any

import jax
from jax.experimental import multihost_utils

STOPPING = (signal.SIGTERM, signal.SIGHUP)
STANDARD_STREAMS = (1, 2)  # file descriptors of stdout and stderr


class StopRequest:
    """Within this context SIGTERM and SIGHUP end nothing, but the first one is noted.

    A SIGHUP that is ignored, as `nohup` has it, stays so.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None  # the one that was received
        self._before: dict[signal.Signals, Any] = {}
        self._asked: int | None = None  # the last step that was asked about

    def __enter__(self) -> 'StopRequest':
        for each in STOPPING:
            # Of several processes, which stop after the same step, JAX's service has SIGTERM.
            is_here = each != signal.SIGTERM or jax.process_count() == 1
            if is_here and signal.getsignal(each) != signal.SIG_IGN:
                self._before[each] = signal.signal(each, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _receive(self, number: int, _) -> None:
        if number == signal.SIGHUP:
            silence_closed_terminals()
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.signal is None:
            self.signal = signal.Signals(number)

    def is_due(self, step: int) -> bool:
        """Whether to stop after `step`: the same answer in all processes, which all have to ask."""
        if jax.process_count() == 1:
            return self.signal is not None
        if self._is_agreed(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    def _is_agreed(self, step: int) -> bool:
        # JAX's service chooses one step, the next of the process that is furthest, and says yes to
        # no other: steps between two dispatches are asked about as well.
        steps = range(step if self._asked is None else self._asked + 1, step + 1)
        self._asked = step
        return any([multihost_utils.reached_preemption_sync_point(each) for each in steps])


def exit_status(received: signal.Signals) -> int:
    """That of a process which a signal has killed, as shells tell it."""
    return 128 + received


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

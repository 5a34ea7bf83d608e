"""Being told to stop: SIGTERM, which pods and job schedulers send some seconds before they kill.

A run that stops for it exits as one that it killed: a scheduler then knows that there is more to
do, and `train && evaluate` evaluates nothing half done.
"""

import signal

import jax
from jax.experimental import multihost_utils

EXIT_STATUS = 128 + signal.SIGTERM


class StopRequest:
    """Within this context SIGTERM ends nothing, but is noted."""

    def __init__(self):
        self._is_received = False
        self._asked: int | None = None  # the last step that was asked about

    def __enter__(self) -> 'StopRequest':
        # Of several processes, which stop after the same step, JAX's service has the signal.
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *_) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, *_) -> None:
        self._is_received = True

    def is_due(self, step: int) -> bool:
        """Whether to stop after `step`: the same answer in all processes, which all have to ask."""
        return self._is_agreed(step) if jax.process_count() > 1 else self._is_received

    def _is_agreed(self, step: int) -> bool:
        # JAX's service chooses one step, the next of the process that is furthest, and says yes to
        # no other: steps between two dispatches are asked about as well.
        steps = range(step if self._asked is None else self._asked + 1, step + 1)
        self._asked = step
        return any([multihost_utils.reached_preemption_sync_point(each) for each in steps])

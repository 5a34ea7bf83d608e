"""Scalars of a run: read late from the device, shown in a progress bar, and kept on disk.

On disk are TensorBoard files, and `metrics.jsonl` with one JSON object a line.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Array
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from choices import InputError, RunError
from devices import processes
from storage import files

Scalars = Mapping[str, Array | float]


SKIPPED = 'skipped'


class Skipped(NamedTuple):
    """So many updates in a row, up to this step, were skipped."""

    step: int
    count: int


class MetricsLog:
    """Appends scalars to both files in `directory`; those of steps after `start_step` are dropped
    first. None: they are kept nowhere.

    A run that was killed has logged steps that its last checkpoint does not know; it will log them
    again. Raises RunError if a file cannot be written.
    """

    def __init__(self, directory: pathlib.Path | None, start_step: int):
        self._events = None
        if directory is None:
            return
        self._path = directory / 'metrics.jsonl'
        _write_lines(self._path, [row for row in read(self._path) if row['step'] <= start_step])
        with files.writing(directory):
            # Not tensorboardX's SummaryWriter: its thread writes later, and tells nobody of errors.
            self._events = EventsWriter(str(directory / 'events'))
            begins = SessionLog(status=SessionLog.START)  # Later steps of files before are void.
            self._events.write_event(Event(step=start_step + 1, session_log=begins))
            self._events.flush()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One line of scalars at a step."""
        if self._events is None:
            return
        with files.writing(self._path):
            with self._path.open('a') as file:
                file.write(json.dumps({'step': step, **scalars}) + '\n')
            for name, value in scalars.items():
                of_name = summary.scalar(name, value)
                self._events.write_event(Event(wall_time=time.time(), step=step, summary=of_name))
            self._events.flush()

    def close(self) -> None:
        """Completes the TensorBoard file."""
        if self._events is not None:
            with files.writing(self._path.parent):
                self._events.close()


class ProgressLog:
    """The metrics of training, averaged between log lines, with a bar that shows rate and remaining
    time.

    Metrics stay on the device until the dispatch after the one that made them is under way, so that
    reading them does not keep the device waiting. Means are over what is finite. Of `skipped`, the
    number of updates in a row that were skipped, the log has how many they were since its last
    line, and `most_skipped` the most that was read.
    """

    def __init__(self, log: MetricsLog, start_step: int, num_steps: int, log_every: int):
        self._log, self._log_every = log, log_every
        self._bar = processes.bar(initial=start_step, total=num_steps, unit='step', desc='train')
        self._window: list[Scalars] = []
        self._unread: list[tuple[int, list[Scalars], tuple[float, float] | None]] = []
        self._waited, self._since = 0.0, time.perf_counter()
        self.most_skipped = Skipped(start_step, 0)

    def __enter__(self) -> 'ProgressLog':
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        # Of two errors the first one is the cause.
        with contextlib.suppress(RunError) if kind else contextlib.nullcontext():
            self.read()
            self._log.close()
        self._bar.close()

    def add(self, step: int, scalars: Scalars, waited: float) -> None:
        """The metrics of the dispatch that ended at `step`; its data were `waited` seconds late."""
        self.read()
        self._window.append(scalars)
        self._waited += waited
        if step % self._log_every == 0:
            # Timed here and not when read, so that the wait is part of the time.
            now = time.perf_counter()
            self._unread.append((step, self._window, (now - self._since, self._waited)))
            self._window, self._waited, self._since = [], 0.0, now

    def add_test_loss(self, step: int, loss: Array) -> None:
        """The loss of the test batch after `step`."""
        self._unread.append((step, [{'test_loss': loss}], None))

    def read(self) -> None:
        """Writes what is unread, waiting for the device to have computed it."""
        unread, self._unread = self._unread, []
        for step, window, timing in unread:
            found = {name: np.ravel([row[name] for row in window]) for name in window[0]}
            skipped = found.pop(SKIPPED, np.zeros(0, int))
            numbers = {
                name: float(a[np.isfinite(a)].mean())
                for name, a in found.items()
                if np.isfinite(a).any()
            }
            if skipped.any():
                numbers[SKIPPED] = int((skipped > 0).sum())
                self._note_skipped(step, skipped)
            if timing:
                numbers |= self._rates(step, *timing)
            self._log.write(step, numbers)
            self._bar.set_postfix({k: f'{v:.4g}' for k, v in numbers.items() if k.endswith('loss')})

    def _note_skipped(self, step: int, skipped: np.ndarray) -> None:
        most = int(skipped.argmax())
        if skipped[most] > self.most_skipped.count:
            self.most_skipped = Skipped(step - len(skipped) + 1 + most, int(skipped[most]))

    def _rates(self, step: int, seconds: float, waited: float) -> dict[str, float]:
        """Steps a second since the last time, and the share of that time spent waiting for data."""
        steps = step - self._bar.n
        self._bar.update(steps)
        return {'steps_per_second': steps / seconds, 'data_wait': waited / seconds}


def read(path: pathlib.Path) -> list[dict]:
    """The rows of a metrics file; a last line that was cut off by a crash is left out.

    Raises InputError for a line that is no row.
    """
    if not path.exists():
        return []
    try:
        *lines, _ = path.read_bytes().split(b'\n')
    except OSError as error:
        raise InputError(f'{path} cannot be read: {files.reason(error)}') from error
    return [_row(line, f'{path}: line {i}') for i, line in enumerate(lines, 1)]


def _row(line: bytes, place: str) -> dict:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    is_row = isinstance(row, dict) and 'step' in row
    if not is_row or not all(isinstance(value, int | float) for value in row.values()):
        raise InputError(
            f'{place} is damaged: {line.decode(errors="replace")!r:.60}; a JSON object with a step '
            'and numbers needed; delete the line'
        )
    return row


def _write_lines(path: pathlib.Path, rows: list[dict]) -> None:
    """Replaces the file at once, so that a crash leaves the old one or the new one."""
    with files.replacing(path) as draft:
        draft.write_text(''.join(json.dumps(row) + '\n' for row in rows))

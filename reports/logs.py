"""Scalars of a run: read late from the device, shown in a progress bar, and kept on disk.

On disk are TensorBoard files, and `metrics.jsonl` with one JSON object a line.
"""

import json
import pathlib
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Array
from tensorboardX import SummaryWriter

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
    again.
    """

    def __init__(self, directory: pathlib.Path | None, start_step: int):
        self._writer = None
        if directory is None:
            return
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / 'metrics.jsonl'
        _write_lines(self._path, [row for row in read(self._path) if row['step'] <= start_step])
        self._writer = SummaryWriter(str(directory), purge_step=start_step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One line of scalars at a step."""
        if self._writer is None:
            return
        with self._path.open('a') as file:
            file.write(json.dumps({'step': step, **scalars}) + '\n')
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Completes the TensorBoard file."""
        if self._writer is not None:
            self._writer.close()


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

    def __exit__(self, *_) -> None:
        self.read()
        self._bar.close()
        self._log.close()

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
    """The rows of a metrics file; a last line that was cut off by a crash is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith('\n')]


def _write_lines(path: pathlib.Path, rows: list[dict]) -> None:
    """Replaces the file at once, so that a crash leaves the old one or the new one."""
    with files.replacing(path) as draft:
        draft.write_text(''.join(json.dumps(row) + '\n' for row in rows))

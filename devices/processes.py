"""Several processes as one program: who they are, what they decide together, and who does what.

All processes run the same code, each on its own rows of every batch. The first one alone writes
files and talks, and what depends on files is decided by it, for all: two machines need not see a
file at the same moment, and processes that take different branches wait for each other for ever.
"""

import contextlib
import functools
import os
import pickle
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from choices import InputError, RunError

Value = TypeVar('Value')

# A process that has been silent for so long is taken for dead, and the others end.
HEARTBEAT_SECONDS = 30
# What takes longer is not silent.
SILENT_SECONDS = 2.0
SECONDS_BETWEEN_LINES = 10.0  # of a bar that is written to a file
# Variables that all tasks of `srun` have, and that JAX finds the others by.
SLURM = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_NTASKS', 'SLURM_PROCID', 'SLURM_LOCALID')
# JAX sets this where it finds TPUs; whether there are other hosts, it learns from their metadata.
TPU = 'TPU_ML_PLATFORM'


# Joining


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    stop_together: bool = True,
) -> int:
    """Joins the processes that the arguments or the environment tell of; how many they are.

    The environment is that of a TPU pod or of SLURM's `srun`. To be called before JAX has devices.
    If they `stop_together`, to save, a service of JAX has SIGTERM from here on.
    Raises InputError for arguments that cannot be used.
    """
    check_flags(coordinator, num_processes, process_id)
    from_slurm = all(name in os.environ for name in SLURM)
    if coordinator is None:
        if not from_slurm and TPU not in os.environ:
            return 1
        num_processes = int(os.environ['SLURM_NTASKS']) if from_slurm else None
    jax.config.update('jax_enable_preemption_service', stop_together)
    jax.distributed.initialize(
        coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
    )
    return num_processes or jax.process_count()


def check_flags(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Raises InputError unless there are all three or none, and they make sense."""
    flags = {
        '--coordinator': coordinator,
        '--num_processes': num_processes,
        '--process_id': process_id,
    }
    missing = [name for name, value in flags.items() if value is None]
    if missing and len(missing) < len(flags):
        raise InputError(f'{missing[0]}: none given; {", ".join(flags)} go together, or none')
    if missing:
        return
    if not re.fullmatch(r'.+:\d+', coordinator):
        raise InputError(f'--coordinator: {coordinator!r}; HOST:PORT of the first process needed')
    if num_processes < 1:
        raise InputError(f'--num_processes: {num_processes}; at least 1 needed')
    if not 0 <= process_id < num_processes:
        raise InputError(f'--process_id: {process_id}; one of 0 to {num_processes - 1} needed')


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """What ends one of several processes by an error ends it at once, and so the others.

    Python would first wait for the others to end, and they for a part in their next step.
    """
    try:
        yield
    except BaseException as error:
        # With a number instead of a message, all leave together.
        is_leaving = isinstance(error, SystemExit) and not isinstance(error.code, str)
        if is_leaving or not jax.distributed.is_initialized():
            raise
        _tell(error)
        os._exit(1)


def _tell(error: BaseException) -> None:
    if isinstance(error, SystemExit):
        print(error.code, file=sys.stderr)
    else:
        sys.excepthook(type(error), error, error.__traceback__)
    sys.stderr.flush()


# Who does what


def is_first() -> bool:
    """Whether this process is the one that writes files and talks."""
    return jax.process_index() == 0


def place() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    return jax.process_index(), jax.process_count()


def on_first(function: Callable, *args: Any) -> None:
    """Calls a function in the first process alone; the others do not wait."""
    if is_first():
        function(*args)


# What is told while there is nothing to see


def say(line: str) -> None:
    """Prints a line, above the bars of a terminal."""
    if not is_first():
        return
    if sys.stderr.isatty():
        tqdm.write(line)
    else:
        sys.stdout.write(f'{line}\n')  # At once, as others write to the same file.
    sys.stdout.flush()


@functools.cache
def tell_once(line: str) -> None:
    """Prints a line, unless it has been printed before."""
    say(line)


@contextlib.contextmanager
def saying(what: str) -> Iterator[None]:
    """Around what is quick as a rule: a line says what it is if it takes over SILENT_SECONDS."""
    timer = threading.Timer(SILENT_SECONDS, say, [f'{what} ...'])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def bar(**options: Any) -> tqdm:
    """A progress bar, which the first process alone shows: of a terminal one line, which is drawn
    anew; elsewhere, as in a file, lines that follow each other.
    """
    kind = tqdm if sys.stderr.isatty() else _Lines
    return kind(dynamic_ncols=True, disable=not is_first(), **options)


class _Lines(tqdm):
    """A bar for where nothing that is written can be drawn over."""

    def __init__(self, **options):
        self._shown: int | None = None  # what it was at in its last line
        super().__init__(**options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if msg is None:
            self._shown = self.n
            # The first line shows that it has begun; between the others there is more time.
            self.mininterval = self.maxinterval = SECONDS_BETWEEN_LINES
            self.fp.write(f'{self}\n')
            self.fp.flush()
        return False  # Nothing is there to be removed.

    def clear(self, *_, **__) -> None:
        pass

    def set_postfix(self, *args, **options) -> None:
        super().set_postfix(*args, **{**options, 'refresh': False})

    def close(self) -> None:
        if not self.disable and self._shown not in (None, self.n):
            self.display()
        self.leave = False
        super().close()


@contextlib.contextmanager
def talking() -> Iterator[None]:
    """What processes other than the first would print is not shown."""
    if is_first():
        yield
        return
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        yield


# What all processes are to know


def from_first(make: Callable[[], Value]) -> Value:
    """What `make()` gives in the first process, or the error that it raises there, in all: an
    InputError or a RunError.

    The others do not call it.
    """
    if jax.process_count() == 1:
        return make()
    sent = pickle.dumps(_outcome(make)) if is_first() else b''
    value, error = pickle.loads(_broadcast(sent))
    if error is not None:
        raise error
    return value


def _outcome(make: Callable) -> tuple[Any, InputError | RunError | None]:
    try:
        return make(), None
    except (InputError, RunError) as error:
        return None, error


def _broadcast(sent: bytes) -> bytes:
    """What the first process sends."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(sent))))
    # Of few different lengths, for each of which there is a program.
    padded = np.zeros(2 ** length.bit_length(), np.uint8)
    padded[: len(sent)] = np.frombuffer(sent, np.uint8)
    return multihost_utils.broadcast_one_to_all(padded)[:length].tobytes()


def all_of(condition: bool) -> bool:
    """Whether something holds in every process."""
    return bool(np.all(multihost_utils.process_allgather(np.bool_(condition))))


def gather(tree: Any) -> Any:
    """Arrays that lie on the devices of all processes, as numpy arrays in every process."""
    return multihost_utils.process_allgather(tree, tiled=True)

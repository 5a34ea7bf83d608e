"""A lock that one command at a time has on a workdir: the file `lock` in it.

The file names the process that has it. While that runs it holds a lock of the operating system
(flock) on the file, which ends with the process, however that ends, and touches the file every few
seconds. At its end, or if a signal ends it, the file is removed. So a file that is there was

* left by a process that is gone, if it is of this machine and nobody has a lock on it;
* maybe left by such a process if it is of another machine, since not every network file system
  tells one machine of the locks of another. It is watched: if nobody touches it, nobody is there.
  No two clocks are compared.

What is left behind is taken over, and a line says so. Where there are no locks of the system at
all, two processes that begin at the same instant may both have it.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import threading
from typing import TextIO

from choices import InputError
from devices import leftovers
from storage import files

TOUCH_SECONDS = 5.0
# A machine may learn of a touch by another one late.
WATCH_SECONDS = 30.0
LOOK_SECONDS = 0.5


class Lock:
    """The lock in the file `path`, which is made when it is taken."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._file: TextIO | None = None
        self._released = threading.Event()
        self._touching: threading.Thread | None = None

    def take(self) -> None:
        """Has the lock from here on; raises InputError, with its name, if another process has it.

        May take WATCH_SECONDS if it was left behind by another machine.
        """
        file, is_locked = _opened(self._path)
        left = _holder(file)
        is_gone = not left or (is_locked and left.get('machine') == _machine())
        if not is_gone and _is_touched(self._path, left):
            file.close()
            raise _in_use(self._path, left)
        if left:
            print(
                f'{self._path}: {_told(left)} left it behind, and is gone; taken over', flush=True
            )
        own = {'host': socket.gethostname(), 'process': os.getpid(), 'machine': _machine()}
        with files.writing(self._path):
            file.truncate(0)
            file.write(json.dumps(own) + '\n')
            file.flush()
        self._file = file
        leftovers.add(self._remove)
        self._released.clear()
        self._touching = threading.Thread(target=self._touch, daemon=True)
        self._touching.start()

    def release(self) -> None:
        """Removes the file, if the lock was taken."""
        if self._file is None:
            return
        self._released.set()
        self._touching.join()
        leftovers.discard(self._remove)
        with contextlib.suppress(OSError):
            self._remove()
        self._file.close()
        self._file = None

    def _remove(self) -> None:
        if _is_at(self._file, self._path):
            self._path.unlink()

    def _touch(self) -> None:
        file = self._file.fileno()
        while not self._released.wait(TOUCH_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(file)


def _opened(path: pathlib.Path) -> tuple[TextIO, bool]:
    """The file, made if there is none, with a lock of the system on it; False if the file system
    has none. Raises InputError if another process has that.
    """
    while True:
        is_locked = True
        with files.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open('a+')
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(file)
            file.close()
            raise _in_use(path, holder) from error
        except OSError:
            is_locked = False
        # Whoever had it may have removed it since it was opened.
        if _is_at(file, path):
            return file, is_locked
        file.close()


def _is_at(file: TextIO, path: pathlib.Path) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder(file: TextIO) -> dict:
    """What the file says of the process that wrote it; {} if it is empty."""
    file.seek(0)
    content = file.read()
    try:
        return dict(json.loads(content)) if content else {}
    except (TypeError, ValueError):
        return {'host': 'a host that is not known'}


def _is_touched(path: pathlib.Path, left: dict) -> bool:
    """Whether some process touches the file within WATCH_SECONDS, or writes or removes it."""
    print(
        f'{path}: {_told(left)} has it; waiting {WATCH_SECONDS:g} s for a sign that it is alive',
        flush=True,
    )
    before, never = _state(path), threading.Event()
    for _ in range(round(WATCH_SECONDS / LOOK_SECONDS)):
        never.wait(LOOK_SECONDS)
        if _state(path) != before:
            return True
    return False


def _state(path: pathlib.Path) -> tuple[int, str] | None:
    try:
        # On network file systems it is opening that asks for the newest state.
        with path.open() as file:
            return os.fstat(file.fileno()).st_mtime_ns, file.read()
    except FileNotFoundError:
        return None


def _machine() -> str:
    """What tells this machine, since it was started, from all others, whatever they are called."""
    try:
        return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    except OSError:
        return socket.gethostname()


def _told(holder: dict) -> str:
    return f'process {holder.get("process", "?")} of {holder.get("host", "this host")}'


def _in_use(path: pathlib.Path, holder: dict) -> InputError:
    return InputError(
        f'--workdir: {path.parent} is in use by {_told(holder)}, which trains or imports there; '
        'wait for its end, end it, or take another --workdir'
    )

"""What a program that ends at once, by os._exit, is not to leave behind: drafts of files, locks.

Python then runs no `finally`, so whoever makes such a file says here how it is removed.
"""

import contextlib
import threading
from collections.abc import Callable

_removals: list[Callable[[], None]] = []
_changing = threading.Lock()


def add(remove: Callable[[], None]) -> None:
    """From here on `remove()` is called if the program ends at once."""
    with _changing:
        _removals.append(remove)


def discard(remove: Callable[[], None]) -> None:
    """Takes back `add(remove)`."""
    with _changing:
        _removals.remove(remove)


def remove_all() -> None:
    """Removes all that was added, as far as the system lets it; to be followed by os._exit.

    Another thread that adds or discards after that waits for the end.
    """
    _changing.acquire()
    for remove in _removals:
        with contextlib.suppress(OSError):
            remove()

"""Programs whose compilation, which may take minutes, is told in a line."""

import functools
from collections.abc import Callable
from typing import Any

from devices import processes


def told(title: str, run: Callable) -> Callable:
    """`run`, a jitted function, with a line before its first call."""
    tell = functools.cache(lambda: processes.say(f'compiling {title} ...'))

    def call(*args):
        tell()
        return run(*args)

    return call


class Compiled:
    """`run`, a jitted function, for arguments of the same shapes and layouts every time, which is
    compiled before its first call.
    """

    def __init__(self, title: str, run: Callable):
        self._title, self._run = title, run
        self._compiled: Callable | None = None

    def prepare(self, *args: Any) -> None:
        """Compiles it for arguments such as these, unless that is done."""
        if self._compiled is None:
            processes.say(f'compiling {self._title} ...')
            self._compiled = self._run.lower(*args).compile()

    def __call__(self, *args: Any) -> Any:
        """Runs it."""
        self.prepare(*args)
        return self._compiled(*args)

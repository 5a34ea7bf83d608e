"""Runs of main.py on several devices and in several processes, all on this machine's CPU."""

import dataclasses
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = '--config=tests/tiny_config.py'


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, and the processes that share its devices."""

    data: int = 1
    fsdp: int = 1
    num_processes: int = 1

    def flags(self) -> list[str]:
        """The mesh on the command line."""
        return [f'--config.mesh.data={self.data}', f'--config.mesh.fsdp={self.fsdp}']


def start(layout: Layout, *command: str, **options) -> list[subprocess.Popen]:
    """The processes of a Python command, `main.py ...` or `-m ...`, under a layout."""
    groups = [[]]
    if layout.num_processes > 1:
        meeting = [
            f'--coordinator=localhost:{free_port()}',
            f'--num_processes={layout.num_processes}',
        ]
        groups = [[*meeting, f'--process_id={i}'] for i in range(layout.num_processes)]
    # The devices are those of the mesh: the environment would have the last word.
    flags = [flag for flag in os.environ.get('XLA_FLAGS', '').split() if 'device_count' not in flag]
    environment = {**os.environ, 'XLA_FLAGS': ' '.join(flags)}
    environment.pop('JAX_NUM_CPU_DEVICES', None)
    return [
        subprocess.Popen(
            [sys.executable, *command, *layout.flags(), *group],
            cwd=ROOT,
            env=environment,
            text=True,
            **{'stdout': subprocess.DEVNULL, 'stderr': subprocess.PIPE, **options},
        )
        for group in groups
    ]


def finish(started: list[subprocess.Popen], timeout: float = 600) -> None:
    """Waits for the processes; RuntimeError, with what it said, if one fails."""
    # All at once: one that fails may have said more than a pipe holds.
    said = [process.communicate(timeout=timeout)[1] for process in started]
    for process, text in zip(started, said, strict=True):
        if process.returncode:
            raise RuntimeError(f'{" ".join(process.args)}: {process.returncode}\n{text}')


def run(layout: Layout, *command: str) -> None:
    """Starts the processes of a Python command and waits for them; RuntimeError if one fails."""
    finish(start(layout, *command))


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(('localhost', 0))
        return found.getsockname()[1]

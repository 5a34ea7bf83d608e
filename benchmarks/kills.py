"""Trains a tiny network through many `kill -9` at random instants, half of them inside the writing
of a checkpoint, and compares the final state with that of a run that nothing disturbed.

python -m benchmarks.kills --kills=25 --seed=0

A killed run is started again by the same command. One that reaches its end before there were
enough kills is compared, and another begins.
"""

import argparse
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import launches
from benchmarks.launches import Layout
from devices import sharding
from experiments import kinds, run_files
from tests import tiny_config

UNFINISHED = 'orbax-checkpoint-tmp'  # in the names of directories that are being written
# Every second step is saved, so that there are many writes to be killed in.
FIELDS = {
    'training.num_steps': 40,
    'training.checkpoint_every': 2,
    'training.eval_every': 0,
    'training.sample_every': 0,
}
LONGEST_WRITE = 0.05  # seconds after a directory appears, at most, until the kill
WRITES_SKIPPED = 6  # up to so many are left to finish before


class Kill(NamedTuple):
    """What a kill met."""

    plan: str
    seconds: float  # after the start of the process
    finished: list[int]  # steps of the checkpoints that were complete
    unfinished: list[int]  # steps of those that were not


def disturbed(
    directory: pathlib.Path, num_kills: int, seed: int, longest: float
) -> Iterator[tuple[pathlib.Path, Kill | None]]:
    """Kills runs, in subdirectories, until there were enough kills and the last run has ended.

    Yields the workdir and the kill, or None where a run reached its end. Instants are drawn from
    up to `longest` seconds after a start, and within writes.
    """
    rng = np.random.default_rng(seed)
    kills, runs = 0, 0
    while True:
        workdir = directory / f'run{runs}'
        plan = 'none' if kills == num_kills else ('in a write', 'at any time')[kills % 2]
        process = start(workdir)
        began = time.monotonic()
        PLANS[plan](process, workdir, rng, longest)
        if process.poll() is None:
            process.kill()
        seconds = time.monotonic() - began
        status = process.wait()
        if status == 0:
            runs += 1
            yield workdir, None
            if kills == num_kills:
                return
        elif status == -9:
            kills += 1
            yield workdir, Kill(plan, seconds, *checkpoints(workdir))
        else:
            raise RuntimeError(f'{workdir} ended with {status}: {process.stderr.read()}')


def start(workdir: pathlib.Path) -> subprocess.Popen:
    """Begins or resumes a run."""
    flags = [f'--config.{name}={value}' for name, value in FIELDS.items()]
    command = ['main.py', launches.CONFIG, '--mode=train', f'--workdir={workdir}', *flags]
    (process,) = launches.start(Layout(), *command)
    return process


def at_any_time(process, workdir, rng, longest) -> None:
    """Returns at a random instant, or when the process ends."""
    _wait(process, rng.uniform(0, longest))


def in_a_write(process, workdir, rng, longest) -> None:
    """Returns while a checkpoint is being written, or when the process ends."""
    left, delay = rng.integers(1, WRITES_SKIPPED + 1), rng.uniform(0, LONGEST_WRITE)
    seen = set(checkpoints(workdir)[1])  # left by earlier kills
    while left and process.poll() is None:
        new = set(checkpoints(workdir)[1]) - seen
        seen |= new
        left -= min(left, len(new))
        time.sleep(0.001)
    _wait(process, delay)


def _wait(process: subprocess.Popen, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def undisturbed(process, workdir, rng, longest) -> None:
    """Returns when the process ends."""
    process.wait()


PLANS: dict[str, Callable] = {
    'at any time': at_any_time,
    'in a write': in_a_write,
    'none': undisturbed,
}


def checkpoints(workdir: pathlib.Path) -> tuple[list[int], list[int]]:
    """Steps of complete checkpoints, and of those of which there is a part."""
    directory = workdir / 'checkpoints'
    names = [path.name for path in directory.iterdir()] if directory.exists() else []
    finished = sorted(int(name) for name in names if name.isdecimal())
    unfinished = sorted(int(name.split('.')[0]) for name in names if UNFINISHED in name)
    return finished, unfinished


def final_state(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of the newest checkpoint."""
    config = tiny_config.get_config()
    config.update_from_flattened_dict(FIELDS)
    state = run_files.restore(config, workdir, kinds.create(config), sharding.create_mesh())
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def differing(workdir: pathlib.Path, reference: pathlib.Path) -> list[str]:
    """Names of the arrays whose bits are others than in the reference."""
    found, expected = final_state(workdir), final_state(reference)
    return [name for name in expected if found[name].tobytes() != expected[name].tobytes()]


def main() -> None:
    """Prints the table of kills."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--kills', type=int, default=25)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        began = time.monotonic()
        launches.finish([start(directory / 'reference')])
        longest = time.monotonic() - began
        print('| kill | planned | seconds | checkpoints | being written |', flush=True)
        print('| --- | --- | --- | --- | --- |', flush=True)
        number, ended = 0, []
        for workdir, kill in disturbed(directory, args.kills, args.seed, longest):
            if kill is None:
                ended.append(workdir)
                continue
            number += 1
            cells = number, kill.plan, f'{kill.seconds:.2f}', kill.finished, kill.unfinished
            print('| ' + ' | '.join(map(str, cells)) + ' |', flush=True)
        for workdir in ended:
            differences = differing(workdir, directory / 'reference')
            print(f'\n{workdir.name}: arrays that differ from the undisturbed run: {differences}')
            assert not differences


if __name__ == '__main__':
    main()

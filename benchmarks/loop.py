"""What training costs besides its steps, and how soon the same command starts a second time.

    python -m benchmarks.loop [--config configs/vp/mnist_ddpmpp.py] [--repeats 5] [--steps 900]

The loop of `run_lib.train` does all that it does in a run but grids of samples: it makes batches,
reports metrics, tests, and saves checkpoints as often as the config says. Of each repeat that is
compared with as many bare steps of the same program on one batch, which follow at once. Its first
third is not counted: in it the loss of a test batch and the checksum of a checkpoint are compiled.

Before, main.py trains in new directories, four times, as a user would start it, with an empty cache
of compiled programs at first; the seconds are those from the start of the program to its report of
the first step, which is a dispatch of its own.
"""

import argparse
import importlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from unittest import mock

import jax

import run_lib
from benchmarks import machine

ROOT = pathlib.Path(__file__).parents[1]


class Recorder:
    """In place of `run_lib.training_program`: keeps the program, its batches, and its calls."""

    def __init__(self, training_program):
        self.training_program, self.times = training_program, []

    def __call__(self, *args):
        run = self.training_program(*args)

        def recorded(state, batches):
            self.times.append(time.perf_counter())
            self.batches = batches
            result = run(state, batches)
            # The state is the next call's, which takes its memory.
            self.state = result[0]
            return result

        self.run = run
        return recorded


def overhead(config, workdir) -> float:
    """The share of a step's time that the loop adds to it."""
    recorder = Recorder(run_lib.training_program)
    with mock.patch.object(run_lib, 'training_program', recorder):
        run_lib.train(config, workdir)
    times = recorder.times[len(recorder.times) // 3 :]
    in_loop = (times[-1] - times[0]) / (len(times) - 1)

    state = jax.block_until_ready(recorder.state)
    start = time.perf_counter()
    for _ in times[1:]:
        state, _ = recorder.run(state, recorder.batches)
    jax.block_until_ready(state)
    return in_loop / ((time.perf_counter() - start) / (len(times) - 1)) - 1


def start(config_file: str, directory: pathlib.Path, name: str) -> float:
    """Seconds until a training, as a program of its own, reports its first step."""
    workdir = directory / name
    command = [sys.executable, 'main.py', '--mode=train', f'--config={config_file}']
    command += [f'--workdir={workdir}', '--config.training.sample_every=0']
    command += ['--config.training.steps_per_dispatch=1', '--config.training.log_every=1']
    command += ['--config.training.num_steps=10']
    environment = {**os.environ, 'XDG_CACHE_HOME': str(directory / 'cache')}
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    begin = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as program:
        report = workdir / 'logs' / 'metrics.jsonl'
        while not (report.exists() and report.stat().st_size) and program.poll() is None:
            time.sleep(0.05)
        seconds = time.perf_counter() - begin
    if program.returncode:
        raise RuntimeError(f'{" ".join(command)}: exit status {program.returncode}')
    return seconds


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default='configs/vp/mnist_ddpmpp.py')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--steps', type=int, default=900)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        module = args.config.removesuffix('.py').replace('/', '.')
        config = importlib.import_module(module).get_config()
        first, *later = [start(args.config, directory, f'start{i}') for i in range(4)]

        run_lib.use_cores(config, num_processes=1)
        config.training.update(num_steps=args.steps, sample_every=0)
        shares = [overhead(config, directory / f'run{i}') for i in range(args.repeats)]
    print(
        f'The loop adds {statistics.median(shares):.1%} to a step (median of {args.repeats}: '
        f'{", ".join(f"{share:.1%}" for share in shares)}).\n'
        f'The first step is done after {first:.1f} s, and when the same command starts again after '
        f'{statistics.median(later):.1f} s (median of {len(later)}).\n{machine.name()}'
    )


if __name__ == '__main__':
    main()

"""Physical memory that a training holds at most, a process for each formulation of a network.

    python -m benchmarks.memory [--only 'VE, nf = 32' ...]

Each process compiles the training step and takes three; formulations are those of networks.py.
"""

import argparse
import subprocess
import sys

import jax

from benchmarks import machine, networks
from devices import sharding

STEPS = 3


def take_steps(case: str, formulation: str) -> None:
    """Prints the bytes that this process has held when the steps are done."""
    sharding.use_cores(networks.CASES[case][2])
    found = networks.programs(*networks.CASES[case], [formulation], ['step'])
    for _ in range(STEPS):
        jax.block_until_ready(found[formulation]['step'].run())
    print(machine.peak_memory())


def measured(case: str, formulation: str) -> int:
    """The bytes that a process of its own has held at most."""
    command = [sys.executable, '-m', 'benchmarks.memory', '--run', case, formulation]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='*', default=[''], help='parts of the names of cases')
    parser.add_argument('--run', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        take_steps(*args.run)
        return
    print(f'{machine.name()}\n')
    print('| network | ' + ' | '.join(networks.FORMULATIONS) + ' |')
    print('| --- ' * (1 + len(networks.FORMULATIONS)) + '|')
    for case in networks.CASES:
        if any(part in case for part in args.only):
            cells = [f'{measured(case, name) / 2**20:.0f} MiB' for name in networks.FORMULATIONS]
            print(f'| {case} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()

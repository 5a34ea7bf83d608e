"""All tables of speed and memory, one after another, each by a process of its own.

    python -m benchmarks [--workdir runs/vp] > tables.md

An hour and a half on two cores, which should have nothing else to do. The workdir is that of a
trained `configs/vp/mnist_ddpmpp.py`, as `make demo` leaves it in runs/demo; without one, networks
that are sampled have initial parameters, with noise on them.
"""

import argparse
import subprocess
import sys

# Title, module, arguments; a workdir is given to the last two.
TABLES = [
    ('Networks', 'networks', []),
    ('Convolutions alone, one device', 'convolutions', []),
    ('Convolutions alone, two devices', 'convolutions', ['--devices', '2']),
    ('Where a training step spends its time', 'profile', []),
    ('The update of parameters', 'update', []),
    ('Memory of a process', 'memory', []),
    ('Input', 'inputs', []),
    ('The training loop', 'loop', []),
]
OF_WORKDIR = [('Sampling', 'sampling'), ('Likelihood', 'likelihood')]


def main() -> None:
    """Prints them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir')
    args = parser.parse_args()
    of_workdir = ['--workdir', args.workdir] if args.workdir else []
    tables = TABLES + [(title, name, of_workdir) for title, name in OF_WORKDIR]
    for title, name, arguments in tables:
        print(f'\n## {title}\n\n`{" ".join(["python -m", f"benchmarks.{name}", *arguments])}`\n')
        sys.stdout.flush()
        subprocess.run([sys.executable, '-m', f'benchmarks.{name}', *arguments], check=True)


if __name__ == '__main__':
    main()

"""What evaluated runs reached, as a Markdown table.

python -m benchmarks.runs runs/vp runs/subvp runs/ve
"""

import json
import pathlib
import statistics
import sys

from evaluation import quantities
from reports import logs


def row(workdir: pathlib.Path) -> str:
    """The newest evaluation of one run."""
    config = json.loads((workdir / 'config.json').read_text())
    newest = max((workdir / 'eval').iterdir(), key=lambda path: int(path.name))
    found = {
        quantity.label: quantity
        for name in ('metrics.json', 'rates.json')
        for quantity in quantities.read(newest / name)
    }
    step = int(newest.name)
    rates = [
        r['steps_per_second']
        for r in logs.read(workdir / 'logs' / 'metrics.jsonl')[1:]
        if 'loss' in r
    ]
    cells = [
        config['sde']['name'],
        step,
        f'{step / statistics.harmonic_mean(rates):.0f}',
        f'{found["test_loss"].value:.4g}',
        quantities.text(found['bits_per_dim']),
        *(
            f'{found[f"{method}_nfe"].value:.0f} / '
            f'{found[f"{method}_samples_per_second"].value:.1f}'
            for method in ('pc', 'ode')
        ),
    ]
    return '| ' + ' | '.join(map(str, cells)) + ' |'


def main(workdirs: list[str]) -> None:
    """Prints the table."""
    print('| SDE | steps | seconds | test loss | bits/dim | PC: NFE / images a second | ODE |')
    print('| --- | --- | --- | --- | --- | --- | --- |')
    for workdir in workdirs:
        print(row(pathlib.Path(workdir)))


if __name__ == '__main__':
    main(sys.argv[1:])

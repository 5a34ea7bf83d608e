"""What runs by different objectives reached, as a Markdown table.

    python -m benchmarks.objective_runs runs/denoising runs/sliced

The newest evaluation of each, with `--config.eval.quality="('classifier',)"`. The denoising loss
has the times and weights of the run.
"""

import argparse
import json
import pathlib

from evaluation import quantities


def row(workdir: pathlib.Path) -> str:
    """The cells of one run."""
    training = json.loads((workdir / 'config.json').read_text())['training']
    newest = max((workdir / 'eval').iterdir(), key=lambda path: int(path.name))
    found = {quantity.label: quantity for quantity in quantities.read(newest / 'metrics.json')}
    denoising = found.get('denoising_loss', found['test_loss'])
    names = 'bits_per_dim', 'pc_fd_classifier', 'ode_fd_classifier'
    cells = [
        f'`{training["objective"]}`',
        f'`{training["weighting"]}`',
        newest.name,
        quantities.text(found['test_loss']),
        quantities.text(denoising),
        *(quantities.text(found[name]) if name in found else '' for name in names),
    ]
    return f'| {" | ".join(cells)} |'


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('workdirs', nargs='+', type=pathlib.Path)
    workdirs = parser.parse_args().workdirs
    header = 'objective', 'weighting', 'steps', 'test loss', 'denoising loss', 'bits/dim'
    print(f'| {" | ".join((*header, "`fd_classifier`, pc", "ode"))} |')
    print('| --- ' * 8 + '|')
    for workdir in workdirs:
        print(row(workdir), flush=True)


if __name__ == '__main__':
    main()

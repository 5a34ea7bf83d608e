"""The report of a run: `report.html` in its workdir, one file that needs no other.

It shows what the files of the workdir hold, and leaves out what is not there. `write` can be called
at any time.
"""

import base64
import html
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from reports import logs, plots
from storage import files, workdirs

NAME = 'report.html'
STRIP_LENGTH = 4  # grids of samples over training
LIBRARIES = ('jax', 'jaxlib', 'flax', 'optax', 'diffrax', 'orbax-checkpoint', 'numpy')
# Numbers that are shown large, and over checkpoints if there are several.
HEADLINES = {
    'test_loss': 'test loss',
    'bits_per_dim': 'bits/dim',
    'accuracy_clean': 'accuracy, clean',
    'pc_fd_classifier': 'fd_classifier, PC',
    'ode_fd_classifier': 'fd_classifier, ODE',
    'pc_fid': 'FID, PC',
    'ode_fid': 'FID, ODE',
}
STYLE = """
:root { color-scheme: light; --ink: #26323a; --soft: #65727b; --line: #dfe4e8; --accent: #1f6f8b }
* { box-sizing: border-box }
body { margin: 0; background: #f5f7f8; color: var(--ink);
  font: 16px/1.55 system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif }
header { background: #16262f; color: #fff; padding: 2.4rem 0 3.6rem }
header p { margin: .3rem 0 0; color: #b9c8d0 }
header > div, main { max-width: 1040px; margin: 0 auto; padding: 0 1.5rem }
h1 { font-size: 1.75rem; font-weight: 600; margin: 0 }
h2 { font-size: 1.15rem; font-weight: 600; margin: 0 0 .9rem }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 1.4rem 1.6rem; margin: 1.3rem 0 }
section > p { color: var(--soft); margin: -.4rem 0 1rem; max-width: 48rem }
.numbers { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: -1.2rem }
.numbers div { background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: .8rem 1.3rem; min-width: 9rem; flex: 1 }
.numbers b { display: block; font-size: 1.5rem; font-weight: 600; color: var(--accent);
  font-variant-numeric: tabular-nums }
.numbers span { color: var(--soft); font-size: .88rem }
.row { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start }
figure { margin: 0; flex: 1 1 200px; max-width: 100% }
figure img { width: 100%; image-rendering: pixelated; border: 1px solid var(--line);
  border-radius: 4px; display: block }
figure svg { max-width: 100%; height: auto; display: block }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .35rem }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums;
  display: block; overflow-x: auto }
th, td { padding: .38rem .9rem .38rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap }
th { color: var(--soft); font-weight: 500 }
th:first-child, td:first-child { text-align: left }
pre { font-size: .82rem; line-height: 1.45; overflow-x: auto; background: #f5f7f8;
  padding: 1rem; border-radius: 6px }
summary { cursor: pointer; color: var(--accent) }
"""


def write(workdir: pathlib.Path) -> pathlib.Path:
    """Replaces the report of a workdir; its path."""
    path = workdir / NAME
    with files.replacing(path) as draft:
        draft.write_text(page(workdir), encoding='utf-8')
    return path


def page(workdir: pathlib.Path) -> str:
    """The whole document."""
    config = json.loads((workdir / 'config.json').read_text())
    found = evaluations(workdir)
    newest = found[max(found)] if found else {}
    title = f'{config["model"]["name"]}, {config["sde"]["name"]} SDE, {config["data"]["source"]}'
    sections = (
        numbers(newest),
        training(workdir),
        samples(workdir, newest),
        comparison(newest),
        exhibits(workdir, newest),
        likelihood(workdir, newest),
        conditional(workdir),
        checkpoints(found),
        setting(config),
    )
    size = ' x '.join(map(str, config['data']['image_size']))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head>
<body><header><div><h1>{html.escape(title)}</h1>
<p>{html.escape(str(workdir))} &middot; {size} pixels</p></div></header>
<main>{''.join(sections)}</main></body></html>
"""


def evaluations(workdir: pathlib.Path) -> dict[int, dict[str, float]]:
    """Numbers and rates of the steps that were evaluated."""
    found = {}
    for path in sorted((workdir / 'eval').glob('*/metrics.json')):
        rates = path.with_name('rates.json')
        of_rates = json.loads(rates.read_text()) if rates.exists() else {}
        found[int(path.parent.name)] = json.loads(path.read_text()) | of_rates
    return found


# Sections: HTML, or nothing where there is nothing to show.


def numbers(newest: dict[str, float]) -> str:
    """What is asked first."""
    cards = [(f'{newest["step"]:,}', 'training steps')] if newest else []
    for name, label in HEADLINES.items():
        if name in newest:
            error = newest.get(f'{name}_standard_error')
            spread = f' &plusmn; {error:.2g}' if error is not None else ''
            cards.append((f'{newest[name]:.3g}{spread}', label))
    items = ''.join(f'<div><b>{value}</b><span>{label}</span></div>' for value, label in cards)
    return f'<div class="numbers">{items}</div>' if cards else ''


def training(workdir: pathlib.Path) -> str:
    """Curves, and grids of samples over training."""
    rows = logs.read(workdir / 'logs' / 'metrics.jsonl')
    if not rows:
        return ''
    rates = [row['steps_per_second'] for row in rows if 'steps_per_second' in row]
    speed = f'{np.median(rates):.3g} steps a second.' if rates else ''
    grids = sorted((workdir / 'samples').glob('[0-9]' * 7 + '.png'))
    chosen = sorted({round(i) for i in np.linspace(0, len(grids) - 1, STRIP_LENGTH)})
    over_time = [
        picture(grids[i], f'samples after {int(grids[i].stem):,} steps') for i in chosen if grids
    ]
    return section('Training', speed, row([plot(plots.training_curves(rows))]), row(over_time))


def samples(workdir: pathlib.Path, newest: dict[str, float]) -> str:
    """The grids of the newest evaluation."""
    directory = eval_directory(workdir, newest)
    paths = sorted(directory.glob('samples_*.png')) if directory else []
    shown = []
    for path in paths:
        method = path.stem.removeprefix('samples_')
        nfe = newest.get(f'{method}_nfe')
        shown.append(picture(path, f'{method}: {nfe:.0f} network evaluations' if nfe else method))
    return section('Samples', '', row(shown)) if shown else ''


def comparison(newest: dict[str, float]) -> str:
    """The samplers side by side, with the floor if there is one."""
    methods = [name.removesuffix(RATE) for name in newest if name.endswith(RATE)]
    names = dict.fromkeys(
        name.removeprefix(f'{method}_')
        for method in methods
        for name in newest
        if name.startswith(f'{method}_') and not name.endswith(('_standard_error', '_images'))
    )
    floors = [split for split in ('train', 'test') if any(f'{split}_{n}' in newest for n in names)]
    if not methods:
        return ''
    labels = {'nfe': 'NFE', 'samples_per_second': 'images/s'}
    header = ['', *(labels.get(name, name.replace('_classifier', '')) for name in names)]
    lines = [
        [f'{who} split (the floor)' if who in floors else who]
        + [value(newest.get(f'{who}_{name}')) for name in names]
        for who in methods + floors
    ]
    note = (
        'Distances are to images of the data by features of a network; those of digits are by this '
        "project's classifier, and no FIDs. The floor is real images in the place of samples."
        if floors
        else 'Images a second are without compilation.'
    )
    return section('Samplers compared', note, table(header, lines))


RATE = '_samples_per_second'


def exhibits(workdir: pathlib.Path, newest: dict[str, float]) -> str:
    """Denoising, interpolation, neighbours."""
    directory = eval_directory(workdir, newest)
    return ''.join(
        section(title, note, row([picture(directory / name)]))
        for name, title, note in EXHIBITS
        if directory and (directory / name).exists()
    )


EXHIBITS = (
    (
        'denoising.png',
        'From noise to images',
        'Pairs of rows: states on their way along the probability-flow ODE, scaled to one range, '
        'and under them what the network takes to be the image.',
    ),
    (
        'interpolation.png',
        'Between the latent codes of test images',
        'The ends of a row are test images that were encoded and decoded; between them lie codes '
        'on the arc from one to the other.',
    ),
    (
        'neighbours.png',
        'Nearest training images',
        'Samples in the first column, followed by the training images at the least Euclidean '
        'distance: a network that has learned by heart shows the same image twice.',
    ),
)


def likelihood(workdir: pathlib.Path, newest: dict[str, float]) -> str:
    """How bits/dim are distributed over images, and where the standard error comes from."""
    directory = eval_directory(workdir, newest)
    path = directory / 'bits_per_dim.npz' if directory else None
    if path is None or not path.exists():
        return ''
    with np.load(path) as file:
        values = file['bits_per_dim']
    lines = [
        [name.removeprefix('bits_per_dim_').replace('_', ' '), value(number)]
        for name, number in newest.items()
        if name.startswith('bits_per_dim_') or name.startswith('round_trip')
    ]
    parts = [plot(plots.histogram(values, 'bits/dim')), figure(table(['', ''], lines), '')]
    return section('Likelihood of test images', '', row(parts))


def conditional(workdir: pathlib.Path) -> str:
    """The newest grid of every task."""
    newest = {}
    for path in sorted((workdir / 'samples').glob('*_*.png')):
        newest[path.stem.partition('_')[2]] = path
    shown = [picture(path, name.replace('_', ', ')) for name, path in newest.items()]
    return section('Drawn by --mode=sample', '', row(shown)) if shown else ''


def checkpoints(found: dict[int, dict[str, float]]) -> str:
    """Numbers over checkpoints, if there are several."""
    if len(found) < 2:
        return ''
    steps = sorted(found)
    lines, curves = [], []
    for name in dict.fromkeys(name for step in steps for name in found[step] if name != 'step'):
        lines.append([name, *(value(found[step].get(name)) for step in steps)])
        if name in HEADLINES and all(name in found[step] for step in steps):
            values = [found[step][name] for step in steps]
            curves.append(plot(plots.over_checkpoints(steps, values, HEADLINES[name])))
    every = f'<details><summary>All numbers</summary>{table(["", *steps], lines)}</details>'
    return section('Checkpoints', '', row(curves), every)


def setting(config: dict) -> str:
    """What is needed to run it again."""
    versions = {'Python': platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in LIBRARIES}
    kinds = ', '.join(sorted({device.device_kind for device in jax.devices()}))
    versions['devices'] = f'{jax.device_count()} of {kinds}'
    fields = workdirs.flatten(config)
    width = max(map(len, fields))
    text = '\n'.join(f'{name:<{width}}  {json.dumps(v)}' for name, v in fields.items())
    return section(
        'Config and versions',
        '',
        table(['', ''], [[name, version] for name, version in versions.items()]),
        f'<details><summary>Every field</summary><pre>{html.escape(text)}</pre></details>',
    )


# Elements


def eval_directory(workdir: pathlib.Path, newest: dict[str, float]) -> pathlib.Path | None:
    """Where the newest evaluation keeps its files."""
    return workdir / 'eval' / str(newest['step']) if newest else None


def section(title: str, note: str, *content: str) -> str:
    """A titled part of the page."""
    paragraph = f'<p>{html.escape(note)}</p>' if note else ''
    return f'<section><h2>{html.escape(title)}</h2>{paragraph}{"".join(content)}</section>'


def row(figures: Sequence[str]) -> str:
    """Figures side by side."""
    return f'<div class="row">{"".join(figures)}</div>' if figures else ''


def figure(content: str, caption: str) -> str:
    """Anything with a caption."""
    below = f'<figcaption>{html.escape(caption)}</figcaption>' if caption else ''
    return f'<figure>{content}{below}</figure>'


def picture(path: pathlib.Path, caption: str = '') -> str:
    """A PNG, in the page itself."""
    data = base64.b64encode(path.read_bytes()).decode()
    alt = html.escape(caption or path.stem)
    return figure(f'<img alt="{alt}" src="data:image/png;base64,{data}">', caption)


def plot(drawn: Any) -> str:
    """A figure of plots.py, in the page itself."""
    return figure(plots.svg(drawn), '')


def table(header: Sequence[Any], lines: Sequence[Sequence[Any]]) -> str:
    """Rows of cells."""
    head = _cells('th', header) if any(header) else ''
    return f'<table>{head}{"".join(_cells("td", line) for line in lines)}</table>'


def _cells(tag: str, line: Sequence[Any]) -> str:
    cells = ''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in line)
    return f'<tr>{cells}</tr>'


def value(number: float | None) -> str:
    """To four digits; a dash for none."""
    if number is None:
        return '–'
    return f'{number:.4g}' if isinstance(number, float) else f'{number:,}'

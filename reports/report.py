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

from datasets import classes
from datasets.classes import Classes
from evaluation import quantities
from evaluation.quantities import Quantity
from reports import logs, plots
from storage import files, resumable, workdirs

NAME = 'report.html'
STRIP_LENGTH = 4  # grids of samples over training
LIBRARIES = ('jax', 'jaxlib', 'flax', 'optax', 'diffrax', 'orbax-checkpoint', 'numpy')
# Numbers that are shown large, and over checkpoints if there are several: their names, and what of.
HEADLINES = {
    'test_loss': 'test loss',
    'bits_per_dim': 'bits/dim',
    'nats': 'nats',
    'mean_squared_error': 'mean squared error',
    'accuracy': 'accuracy',
    'fd': 'Frechet distance',
    'fid': 'FID',
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
    path, text = workdir / NAME, page(workdir)
    with files.replacing(path) as draft:
        draft.write_text(text, encoding='utf-8')
    return path


def check(workdir: pathlib.Path) -> None:
    """Raises InputError for the first file of a workdir that is damaged."""
    workdirs.read_config(workdir)
    workdirs.read_classes(workdir)
    logs.read(workdir / 'logs' / 'metrics.jsonl')
    evaluations(workdir)


def page(workdir: pathlib.Path) -> str:
    """The whole document."""
    config = workdirs.read_config(workdir) or {}
    found = evaluations(workdir)
    step = max(found, default=None)
    newest = found.get(step, [])
    directory = workdir / 'eval' / str(step)
    title, below = headings(config)
    sections = (
        numbers(step, newest),
        training(workdir),
        samples(directory, newest),
        comparison(newest),
        exhibits(directory),
        likelihood(directory, newest),
        conditional(workdir),
        checkpoints(found),
        data(workdir),
        setting(config),
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head>
<body><header><div><h1>{html.escape(title)}</h1>
<p>{html.escape(' · '.join([str(workdir), *below]))}</p></div></header>
<main>{''.join(sections)}</main></body></html>
"""


def headings(config: dict[str, Any]) -> tuple[str, list[str]]:
    """What was trained, and what is said of it below, of any experiment."""
    model, sde, data = (config.get(name, {}) for name in ('model', 'sde', 'data'))
    parts = [
        model.get('name', config.get('experiment', 'experiment')),
        *([f'{sde["name"]} SDE'] if 'name' in sde else []),
        *([str(data['source'])] if 'source' in data else []),
    ]
    size = data.get('image_size')
    return ', '.join(parts), [' x '.join(map(str, size)) + ' pixels'] if size else []


def evaluations(workdir: pathlib.Path) -> dict[int, list[Quantity]]:
    """Numbers and rates of the steps that were evaluated."""
    found = {}
    for path in sorted((workdir / 'eval').glob('*/metrics.json')):
        if not path.parent.name.isdecimal():
            continue  # A copy that somebody has put aside.
        paths = path, path.with_name('rates.json')
        found[int(path.parent.name)] = [
            quantity for path in paths if path.exists() for quantity in quantities.read(path)
        ]
    return found


# Sections: HTML, or nothing where there is nothing to show.


def numbers(step: int | None, newest: list[Quantity]) -> str:
    """What is asked first."""
    cards = [] if step is None else [(f'{step:,}', 'training steps')]
    cards += [(quantities.text(q, digits=3), headline(q)) for q in newest if q.name in HEADLINES]
    items = ''.join(
        f'<div><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'
        for value, label in cards
    )
    return f'<div class="numbers">{items}</div>' if cards else ''


def headline(quantity: Quantity) -> str:
    """What a quantity of HEADLINES is called."""
    return ', '.join(filter(None, (HEADLINES[quantity.name], quantity.of, quantity.by)))


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


def samples(directory: pathlib.Path, newest: list[Quantity]) -> str:
    """The grids of the newest evaluation."""
    evaluations_of = {quantity.of: quantity.value for quantity in newest if quantity.name == NFE}
    shown = []
    for path in sorted(directory.glob('samples_*.png')):
        method = path.stem.removeprefix('samples_')
        nfe = evaluations_of.get(method)
        shown.append(picture(path, f'{method}: {nfe:.0f} network evaluations' if nfe else method))
    return section('Samples', '', row(shown)) if shown else ''


def comparison(newest: list[Quantity]) -> str:
    """The samplers side by side, with the floor if there is one."""
    samplers = list(dict.fromkeys(q.of for q in newest if q.name == NFE and q.of))
    if not samplers:
        return ''
    # A measure is what samplers have; others that have it too are real images in their place.
    measures = (q for q in newest if q.of in samplers and q.better)
    columns = list(dict.fromkeys((q.name, q.by) for q in measures))
    others = dict.fromkeys(q.of for q in newest if (q.name, q.by) in columns)
    floors = [of for of in others if of not in samplers]
    values = {(q.of, q.name, q.by): q for q in newest}
    lines = [
        [f'{of} split (the floor)' if of in floors else of]
        + [value(values.get((of, *column))) for column in columns]
        for of in samplers + floors
    ]
    labels = {NFE: 'NFE', 'samples_per_second': 'images/s'}
    header = ['', *(labels.get(name, name) for name, _ in columns)]
    note = (
        'Distances are to images of the data by features of a network; those of digits are by this '
        "project's classifier, and no FIDs. The floor is real images in the place of samples."
        if floors
        else 'Images a second are without compilation.'
    )
    return section('Samplers compared', note, table(header, lines))


NFE = 'nfe'


def exhibits(directory: pathlib.Path) -> str:
    """Those of score models, of images or of codes."""
    return ''.join(
        section(title, note, row([picture(directory / name)]))
        for name, title, note in EXHIBITS
        if (directory / name).exists()
    )


EXHIBITS = (
    (
        'purification.png',
        'Attacked, and purified',
        'Test images in the first row; below them what an attacker made of them, that in the noise '
        'of the purifier, and what the purifier makes of it.',
    ),
    (
        'denoising.png',
        'From noise to images',
        'Pairs of rows: states on their way along the probability-flow ODE, scaled to one range, '
        'and under them what the network takes to be the image.',
    ),
    (
        'reconstructions.png',
        'Test images, encoded and decoded',
        'Under a row of images the means of the pixels that a code of each is decoded to.',
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
    (
        'solution.png',
        'The solution against the truth',
        'Of the median network, on the finer grid where errors are measured.',
    ),
)


def likelihood(directory: pathlib.Path, newest: list[Quantity]) -> str:
    """How bits/dim are distributed over images, and where the standard error comes from."""
    arrays = resumable.load(directory / 'bits_per_dim.npz')
    if arrays is None:
        return ''
    values = arrays['bits_per_dim']
    lines = [
        [quantity.name.replace('_', ' '), value(quantity)]
        for quantity in newest
        if quantity.name.startswith(('bits_per_dim', 'nats', 'round_trip'))
    ]
    parts = [plot(plots.histogram(values, 'bits/dim')), figure(table(['', ''], lines), '')]
    return section('Likelihood of test images', '', row(parts))


def conditional(workdir: pathlib.Path) -> str:
    """The newest grid of every task."""
    newest = {}
    for path in sorted((workdir / 'samples').glob('[!.]*_*.png')):
        newest[path.stem.partition('_')[2]] = path
    known = classes.kept(workdirs.read_classes(workdir) or {})
    shown = [
        picture(path, name.replace('_', ', ') + of_classes(path.with_suffix('.npz'), known))
        for name, path in newest.items()
    ]
    return section('Drawn by --mode=sample', '', row(shown)) if shown else ''


def of_classes(samples: pathlib.Path, known: Classes) -> str:
    """Which classes the samples in a file are of, if they are of any that have names."""
    if not known.names or not samples.exists():
        return ''
    with np.load(samples) as arrays:
        labels = np.unique(arrays['labels']).tolist() if 'labels' in arrays else []
    return f' of {", ".join(map(known.name, labels))}' if 0 < len(labels) <= classes.SHOWN else ''


def checkpoints(found: dict[int, list[Quantity]]) -> str:
    """Numbers over checkpoints, if there are several."""
    if len(found) < 2:
        return ''
    steps = sorted(found)
    by_label = {step: {quantity.label: quantity for quantity in found[step]} for step in steps}
    lines, curves = [], []
    for label in dict.fromkeys(label for step in steps for label in by_label[step]):
        known = [by_label[step].get(label) for step in steps]
        lines.append([label, *map(value, known)])
        if all(known) and known[0].name in HEADLINES:
            values = [quantity.value for quantity in known]
            curves.append(plot(plots.over_checkpoints(steps, values, headline(known[0]))))
    every = f'<details><summary>All numbers</summary>{table(["", *steps], lines)}</details>'
    return section('Checkpoints', '', row(curves), every)


def data(workdir: pathlib.Path) -> str:
    """The classes of the training images, if they have any."""
    known = classes.kept(workdirs.read_classes(workdir) or {})
    labels = known.existing()
    if not labels:
        return ''
    counts = [f'{count:,}' for count in known.counts] or ['–'] * len(known)
    lines = [[label, known.name(label), counts[label]] for label in labels]
    shown = table(['label', 'class', 'training images'], lines)
    if len(labels) > classes.SHOWN:
        shown = f'<details><summary>All {len(labels):,} classes</summary>{shown}</details>'
    return section('Classes', '', shown)


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


def value(quantity: Quantity | None) -> str:
    """To four digits, with its standard error if that is known; a dash for none."""
    return '–' if quantity is None else quantities.text(quantity)

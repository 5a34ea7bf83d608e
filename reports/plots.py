"""Pictures of a run's numbers, as figures of matplotlib."""

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from storage import files

INK, ACCENT, SECOND = '#333f48', '#1f6f8b', '#c8553d'
STYLE = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'the same names in the same file',
    'font.family': 'sans-serif',
    'font.size': 9,
    'axes.edgecolor': '#b9c2c9',
    'axes.labelcolor': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': '#e4e8eb',
    'text.color': INK,
    'xtick.color': INK,
    'ytick.color': INK,
    'legend.frameon': False,
}


def training_curves(rows: Sequence[dict]) -> Any:
    """Training and test loss over steps, from the rows of a metrics.jsonl."""
    axes, values = _axes(), []
    for name, style in (
        ('loss', {'color': ACCENT, 'alpha': 0.5}),
        ('test_loss', {'color': SECOND, 'marker': 'o', 'markersize': 3}),
    ):
        points = [(row['step'], row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=name.replace('_', ' '), **style)
            values += [value for _, value in points]
    # Losses of some objectives fall below 0.
    axes.set(xlabel='step', ylabel='loss', yscale='log' if min(values, default=0) > 0 else 'linear')
    axes.legend()
    return axes.figure


def histogram(values: Float[np.ndarray, 'images'], label: str) -> Any:
    """How a number is distributed over images, and its mean."""
    axes = _axes()
    axes.hist(values, bins=min(40, max(5, len(values) // 8)), color=ACCENT, alpha=0.75)
    axes.axvline(values.mean(), color=SECOND, label=f'mean {values.mean():.3g}')
    axes.set(xlabel=label, ylabel='images')
    axes.legend()
    return axes.figure


def over_checkpoints(steps: Sequence[int], values: Sequence[float], label: str) -> Any:
    """One number of several checkpoints."""
    axes = _axes((3.4, 2.4))
    axes.plot(steps, values, color=ACCENT, marker='o', markersize=3)
    axes.set(xlabel='step', title=label)
    return axes.figure


def densities(rows: Mapping[str, Float[np.ndarray, 'times num dim']], titles: Sequence[str]) -> Any:
    """How vectors are distributed at some times, one a column, and what they are, one a row: by
    their first two numbers, or by the only one.
    """
    panels = _panels(len(rows), len(titles))
    all_of_them = np.concatenate([x.reshape(-1, x.shape[-1]) for x in rows.values()])
    end = np.quantile(np.abs(all_of_them), 0.998)
    bins = np.linspace(-end, end, 61)
    for axes_of_row, (name, states) in zip(panels, rows.items(), strict=True):
        for axes, title, x in zip(axes_of_row, titles, states, strict=True):
            if x.shape[1] == 1:
                axes.hist(x[:, 0], bins=bins, density=True, color=ACCENT)
            else:
                axes.hist2d(x[:, 0], x[:, 1], bins=bins, cmap='Blues')
                axes.set(aspect='equal', yticks=[])
            axes.set_title(title if name == next(iter(rows)) else '')
        axes_of_row[0].set(ylabel=name)
    return panels[0][0].figure


def solution(
    points: Float[np.ndarray, 'points dim'],
    found: Float[np.ndarray, 'points outputs'],
    truth: Float[np.ndarray, 'points outputs'],
    names: Sequence[str],
) -> Any:
    """A solution of a differential equation, and below it how far it is from the truth: curves over
    one axis, or colours of the first output over two; points in any order.
    """
    of_both = _figure((6.4, 4.4)).subplots(2)
    error = np.maximum(np.abs(found - truth), np.finfo(float).tiny)
    order = np.lexsort(points.T[::-1])
    if points.shape[1] == 1:
        t = points[order, 0]
        of_both[0].plot(t, truth[order], color=INK, linewidth=3, alpha=0.25)
        of_both[0].plot(t, found[order], linewidth=1, color=ACCENT)
        of_both[1].plot(t, error[order], linewidth=1, color=SECOND)
        of_both[0].set(ylabel='solution (wide: truth)')
        of_both[1].set(xlabel=names[0], ylabel='|error|', yscale='log')
        return of_both[0].figure
    shape = [len(np.unique(column)) for column in points.T]
    ends = [end for column in points.T[::-1] for end in (column.min(), column.max())]
    for axes, values, label in (
        (of_both[0], found[:, 0], 'solution'),
        (of_both[1], np.log10(error[:, 0]), 'log10 |error|'),
    ):
        shown = axes.imshow(
            values[order].reshape(shape), aspect='auto', origin='lower', extent=ends
        )
        axes.figure.colorbar(shown, ax=axes, label=label)
        axes.set(xlabel=names[1], ylabel=names[0])
        axes.grid(visible=False)
    return of_both[0].figure


def save(figure: Any, path: pathlib.Path) -> None:
    """As a PNG."""
    with files.replacing(path) as draft:
        figure.savefig(draft, dpi=150)


def svg(figure: Any) -> str:
    """As an element for an HTML page."""
    text = io.StringIO()
    # No date: the same numbers are the same file.
    figure.savefig(text, format='svg', metadata={'Date': None})
    return text.getvalue()[text.getvalue().index('<svg') :]


def _axes(size: tuple[float, float] = (6.4, 3.2)) -> Any:
    """A figure with one set of axes."""
    return _figure(size).subplots()


def _panels(rows: int, columns: int) -> Any:
    """A figure with rows of small square sets of axes."""
    return _figure((1.6 * columns, 1.7 * rows)).subplots(rows, columns, squeeze=False)


def _figure(size: tuple[float, float]) -> Any:
    # Imported late: it takes a second, which every start of the program would wait for.
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(STYLE)
    return Figure(figsize=size, layout='constrained')

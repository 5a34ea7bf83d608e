"""Pictures of a run's numbers."""

import pathlib

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

import metrics


def training_curves(source: pathlib.Path, target: pathlib.Path) -> None:
    """Training and test loss over steps, from a metrics.jsonl, as a PNG."""
    rows = metrics.read(source)
    figure, axes = plt.subplots(figsize=(7, 4), layout='constrained')
    for name, style in (('loss', {'alpha': 0.5}), ('test_loss', {'marker': 'o', 'markersize': 3})):
        points = [(row['step'], row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=name.replace('_', ' '), **style)
    axes.set(xlabel='step', ylabel='loss', yscale='log')
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, dpi=150)
    plt.close(figure)

"""Pictures of a run's numbers."""

import pathlib

import metrics


def training_curves(source: pathlib.Path, target: pathlib.Path) -> None:
    """Training and test loss over steps, from a metrics.jsonl, as a PNG."""
    # Imported late: it takes a second, which every start of the program would wait for.
    from matplotlib.figure import Figure

    rows = metrics.read(source)
    figure = Figure(figsize=(7, 4), layout='constrained')
    axes = figure.subplots()
    for name, style in (('loss', {'alpha': 0.5}), ('test_loss', {'marker': 'o', 'markersize': 3})):
        points = [(row['step'], row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=name.replace('_', ' '), **style)
    axes.set(xlabel='step', ylabel='loss', yscale='log')
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, dpi=150)

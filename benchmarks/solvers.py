"""Error against network evaluations for every solver, on the empirical score of real digits.

    python -m benchmarks.solvers [--num 1024] [--docs docs]

The data are the 5,000 embedded MNIST digits and nothing else, so the score of p_t is known: a
softmax over the images. The best network could learn no other, and the error is the solver's. Two
errors, after the last denoising:

* the Fréchet distance between `num` samples, as pixels, and all 5,000 digits. A draw of `num`
  digits has a distance too, by its size: the floor.
* for solvers of the probability-flow ODE, the root mean square distance of a sample from the end of
  the same trajectory at 1,000 steps of the highest order, in units of a pixel's range. It is
  carried by the few latents at the border between two digits.

Implicit solvers are missing: each of their steps takes a derivative along all 784 dimensions.
Picard iteration evaluates many steps at once: what counts for it is its evaluations in a row.

Writes `solvers.md` and `solvers.png`.
"""

import argparse
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

import keys
import sde_lib
from benchmarks import machine
from configs import base
from datasets import loading
from datasets.mixtures import Mixture
from experiments import image_drawing
from parameterization import Process

T_MIN = 1e-3
SHAPE = 28, 28, 1
BUDGETS = 6, 10, 20, 50, 100
PUBLISHED = {
    'method': 'pc',
    'grid': 'uniform',
    'steps': 1000,
    'predictor': 'reverse_diffusion',
    'corrector': 'langevin',
    'batch_mean_norm': True,
}
LOG_SNR, KARRAS = {'grid': 'log_snr'}, {'grid': 'karras'}
ON_LOG_SNR = {'adaptive': False, **LOG_SNR}
# Name, fields of config.sampling, evaluations a step, and those besides.
ON_GRIDS = [
    ('Euler-Maruyama', {'method': 'pc', **KARRAS}, 1, 0),
    ('reverse diffusion', {'method': 'pc', 'predictor': 'reverse_diffusion', **KARRAS}, 1, 0),
    ('ancestral', {'method': 'pc', 'predictor': 'ancestral', **KARRAS}, 1, 0),
    (
        'ancestral + Langevin',
        {'method': 'pc', 'predictor': 'ancestral', 'corrector': 'langevin', **KARRAS},
        2,
        0,
    ),
    ('DDIM', {'method': 'pc', 'predictor': 'ddim', **KARRAS}, 1, 1),
    ('Euler (Karras)', {'method': 'euler', **KARRAS}, 1, 1),
    ('Heun (Karras)', {'method': 'heun', **KARRAS}, 2, 1),
    ('Heun (Karras), churn', {'method': 'heun', 'churn': 10.0, **KARRAS}, 2, 1),
    ('DPM-Solver++ 2S', {'method': 'dpmpp_2s', **LOG_SNR}, 2, 1),
    ('DPM-Solver++ 2M', {'method': 'dpmpp_2m', **LOG_SNR}, 1, 1),
    ('DPM-Solver++ 3M', {'method': 'dpmpp_3m', **LOG_SNR}, 1, 2),
    ('DPM-Solver++ 2M SDE', {'method': 'dpmpp_2m_sde', **LOG_SNR}, 1, 0),
    ('UniPC-2', {'method': 'unipc_2', **LOG_SNR}, 1, 1),
    ('UniPC-3', {'method': 'unipc_3', **LOG_SNR}, 1, 1),
    ('ODE, Heun', {'method': 'ode', 'solver': 'heun', **ON_LOG_SNR}, 2, 1),
    ('ODE, Bosh3', {'method': 'ode', 'solver': 'bosh3', **ON_LOG_SNR}, 3, 2),
    ('ODE, Tsit5', {'method': 'ode', 'solver': 'tsit5', **ON_LOG_SNR}, 6, 2),
    ('reverse SDE, Euler', {'method': 'sde', 'sde_solver': 'euler', **ON_LOG_SNR}, 1, 1),
    ('reverse SDE, SEA', {'method': 'sde', 'sde_solver': 'sea', **ON_LOG_SNR}, 1, 1),
    ('reverse SDE, SRA1', {'method': 'sde', 'sde_solver': 'sra1', **ON_LOG_SNR}, 2, 1),
    ('reverse SDE, ShARK', {'method': 'sde', 'sde_solver': 'shark', **ON_LOG_SNR}, 2, 1),
]
ADAPTIVE = [
    ('adaptive ODE, Tsit5', {'method': 'ode'}, (1e-1, 1e-2, 1e-3)),
    ('adaptive ODE, Dopri8', {'method': 'ode', 'solver': 'dopri8'}, (1e-1, 1e-2, 1e-3)),
    ('adaptive reverse SDE, ShARK', {'method': 'sde'}, (0.5, 0.1, 0.02)),
    ('adaptive SDE', {'method': 'adaptive_sde'}, (0.5, 0.1, 0.02)),
    (
        'Picard, 100 ancestral steps',
        {'method': 'picard', 'predictor': 'ancestral', 'steps': 100, **KARRAS},
        (1.0, 0.3, 0.1),
    ),
]
DETERMINISTIC = {
    'DDIM',
    'Euler (Karras)',
    'Heun (Karras)',
    'DPM-Solver++ 2S',
    'DPM-Solver++ 2M',
    'DPM-Solver++ 3M',
    'UniPC-2',
    'UniPC-3',
    'ODE, Heun',
    'ODE, Bosh3',
    'ODE, Tsit5',
    *[name for name, fields, _ in ADAPTIVE if fields['method'] == 'ode'],
}


def digits() -> np.ndarray:
    """All embedded digits in [-1, 1]: [5000, 28, 28, 1]."""
    splits = [loading.load('mnist5k', split, SHAPE[:2], 1) for split in ('train', 'test')]
    pixels = [split.gather(np.arange(len(split)))['image'] for split in splits]
    return np.concatenate(pixels).astype(np.float32) / 127.5 - 1


class Point(NamedTuple):
    """What a run took, of evaluations and of those in a row, and its errors; nan where none is."""

    nfe: float
    rounds: float
    distance: float
    error: float


def draw(process: Process, fields: dict, num: int) -> tuple[np.ndarray, float, float]:
    """Samples as [num, 784], their mean evaluations, and those in a row."""
    config = base.get_config()
    config.sampling.update({'t_min': T_MIN, **fields})
    sampler = image_drawing.create_sampler(config, process.sde, config.sampling.method)
    image_keys = keys.of_images(jax.random.key(0), jnp.arange(num))
    drawn = jax.jit(lambda image_keys: sampler(image_keys, process, SHAPE))(image_keys)
    rounds = drawn.nfe if drawn.rounds is None else drawn.rounds
    return np.asarray(drawn.x).reshape(num, -1), float(drawn.nfe.mean()), float(rounds.mean())


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Between the normal distributions with the moments of x and y, [num, dim]."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    root = square_root(np.cov(y.T))
    cross = np.linalg.eigvalsh(root @ np.cov(x.T) @ root)
    traces = np.var(x, axis=0, ddof=1).sum() + np.var(y, axis=0, ddof=1).sum()
    means = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    return means + traces - 2 * np.sqrt(np.maximum(cross, 0)).sum()


def square_root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric one."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def runs() -> list[tuple[str, float, dict]]:
    """Every solver with every budget that holds a step, or tolerance, and the fields for it."""
    fixed = [
        (name, budget, {**fields, 'steps': (budget - besides) // a_step})
        for name, fields, a_step, besides in ON_GRIDS
        for budget in BUDGETS
        if budget >= a_step + besides
    ]
    adaptive = [
        (name, tolerance, {**fields, **tolerances(fields['method'], tolerance)})
        for name, fields, values in ADAPTIVE
        for tolerance in values
    ]
    return [*fixed, *adaptive, ('published PC', 2000, PUBLISHED)]


def tolerances(method: str, tolerance: float) -> dict:
    """Those of the ODE or of Picard, or the relative one of SDEs, whose other is a grey level."""
    names = {'ode': ('rtol', 'atol'), 'picard': ('picard_tolerance',)}
    return dict.fromkeys(names.get(method, ('sde_rtol',)), tolerance)


Found = dict[str, dict[float, Point]]


def measure(num: int) -> tuple[Found, tuple[float, float]]:
    """Points of every solver by budget or tolerance; the floor and its deviation."""
    images = digits()
    data = images.reshape(len(images), -1)
    process = Mixture(jnp.asarray(data), 0.0).process(sde_lib.VP())
    exact, *_ = draw(process, {'method': 'dpmpp_3m', 'steps': 1000, **LOG_SNR}, num)
    found: Found = {}
    for name, column, fields in tqdm(runs(), unit='run', dynamic_ncols=True):
        x, nfe, rounds = draw(process, fields, num)
        error = np.sqrt(np.mean((x - exact) ** 2)) / 2 if name in DETERMINISTIC else np.nan
        found.setdefault(name, {})[column] = Point(nfe, rounds, frechet_distance(x, data), error)
    rng = np.random.default_rng(0)
    floors = [frechet_distance(data[rng.integers(len(data), size=num)], data) for _ in range(5)]
    return found, (np.mean(floors), np.std(floors, ddof=1))


def markdown(found: Found, floor: tuple[float, float], num: int) -> str:
    """The tables."""
    lines = [
        '# Solvers on the empirical score of 5,000 digits',
        '',
        f'Output of `python -m benchmarks.solvers`, on {machine.name()}. VP SDE, t_min = {T_MIN},',
        f'{num} samples from the same keys; the file says what is measured. Fréchet distance:',
        f'a draw of {num} of the digits themselves is at {floor[0]:.2f} +- {floor[1]:.2f}',
        '(standard deviation of five draws). In brackets the root mean square error of the ODE',
        'solution, in pixel ranges.',
        '',
        '| solver | ' + ' | '.join(f'up to {budget} NFE' for budget in BUDGETS) + ' |',
        '| --- |' + ' --- |' * len(BUDGETS),
    ]
    for name, *_ in ON_GRIDS:
        cells = [cell(found[name].get(budget)) for budget in BUDGETS]
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
    lines += ['', '| at tolerance | NFE | in a row | distance |', '| --- | --- | --- | --- |']
    for name, *_ in ADAPTIVE:
        for tolerance, point in found[name].items():
            lines.append(f'| {name}, {tolerance:g} | {row(point)} |')
    published = found['published PC'][2000]
    lines.append(f'| published PC | {row(published)} |')
    at_20 = {name: found[name][20] for name, *_ in ON_GRIDS}
    best = min(at_20, key=lambda name: at_20[name].distance)
    ratio = at_20[best].distance / published.distance
    lines += [
        '',
        f'At 20 evaluations {best} is at {ratio:.3f} of the distance of',
        f'the published predictor-corrector sampler at {published.nfe:.0f}.',
        '',
        '![Distance against evaluations](solvers.png)',
        '',
    ]
    return '\n'.join(lines)


def cell(point: Point | None) -> str:
    """A distance, and the error of the ODE where there is one."""
    if point is None:
        return ''
    error = '' if np.isnan(point.error) else f' ({point.error:.4f})'
    return f'{point.distance:.2f}{error}'


def row(point: Point) -> str:
    """All of a point."""
    return f'{point.nfe:.0f} | {point.rounds:.0f} | {cell(point)}'


def plot(found: Found, floor: tuple[float, float], path: pathlib.Path) -> None:
    """Distance and ODE error over evaluations."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout='constrained')
    colors = plt.get_cmap('tab20').colors + plt.get_cmap('tab20b').colors
    for (name, points), color in zip(found.items(), colors, strict=False):
        _, rounds, distance, error = np.array(list(points.values())).T
        left.plot(rounds, distance, marker='o', markersize=4, color=color, label=name)
        if not np.isnan(error).all():
            right.plot(rounds, error, marker='o', markersize=4, color=color)
    left.axhspan(floor[0] - floor[1], floor[0] + floor[1], color='grey', alpha=0.4, label='floor')
    left.set(xlabel='network evaluations in a row', ylabel='Fréchet distance of pixels')
    right.set(xlabel='network evaluations in a row', ylabel='RMS error of the ODE solution')
    for axes in (left, right):
        axes.set(xscale='log', yscale='log')
        axes.grid(alpha=0.3, which='both')
    left.set_ylim(5, 100)
    # One latent that changes sides is about 1e-2: below are those where none does.
    right.set_ylim(bottom=3e-3)
    figure.legend(loc='outside right upper', fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--num', type=int, default=1024, help='samples of each run')
    parser.add_argument('--docs', type=pathlib.Path, default='docs', help='where the files go')
    flags = parser.parse_args()
    found, floor = measure(flags.num)
    text = markdown(found, floor, flags.num)
    (flags.docs / 'solvers.md').write_text(text)
    plot(found, floor, flags.docs / 'solvers.png')
    print(text)


if __name__ == '__main__':
    main()

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

Writes `solvers.md` and `solvers.png`.
"""

import argparse
import functools
import pathlib
import types

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

import datasets
import samplers
import sde_lib
from benchmarks import machine
from configs import base
from mixtures import Mixture

T_MIN = 1e-3
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
]
ADAPTIVE = [
    ('ODE, Tsit5', {'method': 'ode'}, (1e-1, 1e-2, 1e-3)),
    ('ODE, Dopri8', {'method': 'ode', 'solver': 'dopri8'}, (1e-1, 1e-2, 1e-3)),
    ('reverse SDE, ShARK', {'method': 'sde'}, (0.5, 0.1, 0.02)),
    ('adaptive SDE', {'method': 'adaptive_sde'}, (0.5, 0.1, 0.02)),
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
    *[name for name, fields, _ in ADAPTIVE if fields['method'] == 'ode'],
}


def digits() -> np.ndarray:
    """All embedded digits in [-1, 1]: [5000, 28, 28, 1]."""
    splits = [datasets.load('mnist5k', split, (28, 28), 1) for split in ('train', 'test')]
    pixels = [split.gather(np.arange(len(split)))['image'] for split in splits]
    return np.concatenate(pixels).astype(np.float32) / 127.5 - 1


def draw(score_fn, fields: dict, num: int) -> tuple[np.ndarray, float]:
    """Samples as [num, 784], and their mean evaluations."""
    config = base.get_config()
    config.sampling.update({'t_min': T_MIN, **fields})
    model = types.SimpleNamespace(
        sde=sde_lib.VP(),
        num_classes=0,
        image_shape=(28, 28, 1),
        score_fn=lambda params, classes=None: score_fn,
    )
    sample = samplers.create_sampler(config, model, config.sampling.method)
    drawn = jax.jit(functools.partial(sample, None))(jax.random.key(0), jnp.arange(num))
    return np.asarray(drawn.x).reshape(num, -1), float(drawn.nfe.mean())


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


def runs() -> list[tuple[str, dict]]:
    """Every solver with the fields of every budget or tolerance."""
    fixed = [
        (name, {**fields, 'steps': (budget - besides) // a_step})
        for name, fields, a_step, besides in ON_GRIDS
        for budget in BUDGETS
    ]
    adaptive = [
        (name, {**fields, **tolerances(fields['method'], tolerance)})
        for name, fields, values in ADAPTIVE
        for tolerance in values
    ]
    return [*fixed, *adaptive, ('published PC', PUBLISHED)]


def tolerances(method: str, tolerance: float) -> dict:
    """Those of the ODE, or the relative one of SDEs, whose absolute one is a grey level."""
    if method == 'ode':
        return {'rtol': tolerance, 'atol': tolerance}
    return {'sde_rtol': tolerance}


def measure(num: int) -> tuple[dict[str, list], tuple[float, float]]:
    """(nfe, distance, ODE error or nan) of every run by name; the floor and its deviation."""
    images = digits()
    data = images.reshape(len(images), -1)
    score_fn = Mixture(jnp.asarray(data), 0.0).score_fn(sde_lib.VP())
    exact, _ = draw(score_fn, {'method': 'dpmpp_3m', 'steps': 1000, **LOG_SNR}, num)
    found: dict[str, list] = {}
    for name, fields in tqdm(runs(), unit='run', dynamic_ncols=True):
        x, nfe = draw(score_fn, fields, num)
        error = np.sqrt(np.mean((x - exact) ** 2)) / 2 if name in DETERMINISTIC else np.nan
        found.setdefault(name, []).append((nfe, frechet_distance(x, data), error))
    rng = np.random.default_rng(0)
    floors = [frechet_distance(data[rng.integers(len(data), size=num)], data) for _ in range(5)]
    return found, (np.mean(floors), np.std(floors, ddof=1))


def markdown(found: dict[str, list], floor: tuple[float, float], num: int) -> str:
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
    lines += [f'| {name} | ' + ' | '.join(map(cell, found[name])) + ' |' for name, *_ in ON_GRIDS]
    lines += ['', '| adaptive, at tolerance | NFE | distance |', '| --- | --- | --- |']
    for name, _, values in ADAPTIVE:
        for tolerance, point in zip(values, found[name], strict=True):
            lines.append(f'| {name}, {tolerance:g} | {point[0]:.0f} | {cell(point)} |')
    published = found['published PC'][0]
    lines.append(f'| published PC | {published[0]:.0f} | {cell(published)} |')
    at_20 = {name: found[name][BUDGETS.index(20)] for name, *_ in ON_GRIDS}
    best = min(at_20, key=lambda name: at_20[name][1])
    lines += [
        '',
        f'At 20 evaluations {best} is at {at_20[best][1] / published[1]:.3f} of the distance of',
        f'the published predictor-corrector sampler at {published[0]:.0f}.',
        '',
        '![Distance against evaluations](solvers.png)',
        '',
    ]
    return '\n'.join(lines)


def cell(point: tuple[float, float, float]) -> str:
    """A distance, and the error of the ODE where there is one."""
    _, distance, error = point
    return f'{distance:.2f}' if np.isnan(error) else f'{distance:.2f} ({error:.4f})'


def plot(found: dict[str, list], floor: tuple[float, float], path: pathlib.Path) -> None:
    """Distance and ODE error over evaluations."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout='constrained')
    colors = plt.get_cmap('tab20').colors
    for (name, points), color in zip(found.items(), colors, strict=False):
        nfe, distance, error = np.array(points).T
        left.plot(nfe, distance, marker='o', markersize=4, color=color, label=name)
        if not np.isnan(error).all():
            right.plot(nfe, error, marker='o', markersize=4, color=color)
    left.axhspan(floor[0] - floor[1], floor[0] + floor[1], color='grey', alpha=0.4, label='floor')
    left.set(xlabel='network evaluations', ylabel='Fréchet distance of pixels')
    right.set(xlabel='network evaluations', ylabel='RMS error of the ODE solution')
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

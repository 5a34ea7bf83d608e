"""The double well in one dimension, whose marginals are solutions of the Fokker-Planck equation."""

import jax.numpy as jnp
import numpy as np
from scipy import stats

import sde_lib
from parameterization import Process

SDE = sde_lib.DoubleWell()
MEAN, STD = 0.6, 0.3  # of the data, which are normal
GRID = np.linspace(-3.2, 3.2, 501)
TIMES = np.geomspace(SDE.t_min, SDE.T, 121)


def densities(times):
    """p_t on GRID at these times, by the eigenvectors of the generator on the grid."""
    width, noise2 = GRID[1] - GRID[0], SDE.noise**2
    log_stationary = -2 * (GRID**4 / 4 - GRID**2 / 2) / noise2
    # Jumps to neighbours, in detailed balance with the stationary law; symmetric after scaling.
    n = len(GRID)
    rate = 0.5 * SDE.rate * noise2 / width**2
    generator = np.zeros((n, n))
    up = rate * np.exp(0.5 * np.diff(log_stationary))
    down = rate * np.exp(-0.5 * np.diff(log_stationary))
    generator[np.arange(n - 1), np.arange(n - 1)] -= up
    generator[np.arange(1, n), np.arange(1, n)] -= down
    generator[np.arange(n - 1), np.arange(1, n)] = rate
    generator[np.arange(1, n), np.arange(n - 1)] = rate
    values, vectors = np.linalg.eigh(generator)
    scale = np.exp(0.5 * (log_stationary - log_stationary.max()))
    start = stats.norm.pdf(GRID, MEAN, STD)
    parts = vectors.T @ (start / scale)
    return np.stack([scale * (vectors @ (np.exp(values * t) * parts)) for t in times])


def log_density(t):
    """log p_t on GRID."""
    return np.log(np.maximum(densities([t])[0], 1e-30))


def process():
    """With the exact score, interpolated on GRID by cubics, whose derivative has no jumps, and
    linearly in the logarithm of the time."""
    table = np.gradient(np.log(np.maximum(densities(TIMES), 1e-30)), GRID, axis=1)
    table = jnp.asarray(table, jnp.float32)

    def at(row, column):
        """Catmull and Rom's cubic through four neighbours."""
        i = jnp.clip(jnp.floor(column).astype(int), 1, len(GRID) - 3)
        u = column - i
        a, b, c, d = (table[row, i + k] for k in (-1, 0, 1, 2))
        return b + 0.5 * u * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))

    def score(x, t):
        row = jnp.log(t / TIMES[0]) / np.log(TIMES[1] / TIMES[0])
        column = (jnp.clip(x[:, 0], GRID[0], GRID[-1]) - GRID[0]) / (GRID[1] - GRID[0])
        j = jnp.clip(jnp.floor(row).astype(int), 0, len(TIMES) - 2)
        v = row - j
        return ((1 - v) * at(j, column) + v * at(j + 1, column))[:, None]

    return Process(SDE, score)


def quantile_error(x, t, shares=(0.1, 0.3, 0.5, 0.7, 0.9)):
    """How far the shares of samples below the quantiles of p_t are from what they should be, in
    standard errors."""
    density = densities([t])[0]
    below = np.cumsum(density) / density.sum()
    # A cell's mass counts half below its centre.
    below -= 0.5 * density / density.sum()
    points = np.interp(shares, below, GRID)
    found = np.array([np.mean(np.asarray(x) < point) for point in points])
    shares = np.array(shares)
    return (found - shares) / np.sqrt(shares * (1 - shares) / len(x))

"""How alike two sets of images are, from features [num, dim] of a network; pure numpy in float64.

    Frechet distance     |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 sqrt(S_1 S_2)) of Gaussians fitted to
                         both; by features of the FID Inception, the FID (Heusel et al. 2017)
    kernel distance      squared maximum mean discrepancy with the kernel (x y / dim + 1)^3: the KID
    Inception score      exp of the mean of KL(p(y | x), p(y)), of the logits of one set
    precision, recall    the share of one set in the neighbourhoods of the other
    density, coverage    the same, less moved by outliers

Features are independent draws: which of them are in a batch, a split or a block is of no account.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.special
from jaxtyping import Bool, Float

# Of one set, and of another.
Features = Float[np.ndarray, 'num dim']
Others = Float[np.ndarray, 'others dim']
ROWS_AT_ONCE = 1024  # of a matrix of distances
# Eigenvalues of a covariance below this, times its dimension, of the largest are rounding errors.
EPS = np.finfo(np.float64).eps


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    standard_error: float


# Moments


class Moments(NamedTuple):
    """Mean and sum of squares about it, of `count` features."""

    count: int
    mean: Float[np.ndarray, 'dim']
    scatter: Float[np.ndarray, 'dim dim']

    @property
    def covariance(self) -> Float[np.ndarray, 'dim dim']:
        """The unbiased estimate, of at least two features."""
        return self.scatter / (self.count - 1)


def moments(features: Features) -> Moments:
    """Moments of one batch."""
    features = np.asarray(features, np.float64)
    mean = features.mean(0)
    return Moments(len(features), mean, (features - mean).T @ (features - mean))


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both sets together, to rounding (Chan et al. 1979, eq. 2.1)."""
    count = a.count + b.count
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.count / count)
    between = np.outer(delta, delta) * (a.count * b.count / count)
    return Moments(count, mean, a.scatter + b.scatter + between)


# Frechet distance


class Gaussian(NamedTuple):
    """N(mean, root root^T); of few samples the root has few columns."""

    mean: Float[np.ndarray, 'dim']
    root: Float[np.ndarray, 'dim rank']


def gaussian(fitted: Moments) -> Gaussian:
    """The Gaussian with these moments, whose covariance may be singular."""
    values, vectors = scipy.linalg.eigh(fitted.covariance)
    kept = values > values[-1] * len(values) * EPS
    return Gaussian(fitted.mean, vectors[:, kept] * np.sqrt(values[kept]))


def fit(features: Features) -> Gaussian:
    """The Gaussian fitted to features; exact for fewer of them than dimensions."""
    num, dim = features.shape
    if num > dim:
        return gaussian(moments(features))
    features = np.asarray(features, np.float64)
    mean = features.mean(0)
    return Gaussian(mean, (features - mean).T / np.sqrt(num - 1))


def frechet_distance(p: Gaussian, q: Gaussian) -> float:
    """Squared 2-Wasserstein distance of two Gaussians (Dowson & Landau 1982).

    The eigenvalues of S_1 S_2 are the squares of the singular values of root_1^T root_2. So no root
    of a matrix is taken, and none of rounding errors, whatever the rank.
    """
    cross = scipy.linalg.svdvals(p.root.T @ q.root).sum()
    squares = sum(np.square(a).sum() for a in (p.mean - q.mean, p.root, q.root))
    return max(float(squares - 2 * cross), 0.0)


class Extrapolated(NamedTuple):
    """distance(N) = at_infinity + slope / N."""

    at_infinity: float
    slope: float


def extrapolated_frechet_distance(
    features: Features, reference: Gaussian, seed: int = 0, num_points: int = 15
) -> Extrapolated:
    """The distance of infinitely many samples, by a line in 1/N (Chong & Forsyth 2020, sec. 3.2).

    N runs from a tenth of the samples to all; the curve is a line only where N is well above the
    dimension, so where there are too few, from half. The bias by the size of the reference remains.
    """
    num, dim = features.shape
    fewest = num // 10 if num // 10 > 2 * dim else num // 2
    sizes = np.linspace(fewest, num, num_points).astype(int)
    rng = np.random.default_rng(seed)
    distances = [
        frechet_distance(fit(features[rng.permutation(num)[:size]]), reference) for size in sizes
    ]
    slope, at_infinity = np.polyfit(1 / sizes, distances, 1)
    return Extrapolated(float(at_infinity), float(slope))


# Kernel distance


def kernel_distance(
    x: Features, y: Others, seed: int = 0, num_blocks: int = 10, block_size: int = 1000
) -> Estimate:
    """The unbiased estimate of Binkowski et al. 2018 (eq. 4), as a mean over disjoint blocks.

    There are `num_blocks`, more where blocks of `block_size` make more, and fewer where there are
    not two samples for each; every sample is in one. The order in which sets come, by class say,
    does not matter. The standard error is that of the mean over blocks; of one block it is nan.
    """
    fewest = min(len(x), len(y))
    num_blocks = min(max(num_blocks, -(-max(len(x), len(y)) // block_size)), fewest // 2)
    rng = np.random.default_rng(seed)
    x, y = (np.float64(features)[rng.permutation(len(features))] for features in (x, y))
    blocks = zip(np.array_split(x, num_blocks), np.array_split(y, num_blocks), strict=True)
    found = np.array([squared_mmd(*block) for block in blocks])
    error = found.std(ddof=1) / np.sqrt(num_blocks) if num_blocks > 1 else np.nan
    return Estimate(float(found.mean()), float(error))


def squared_mmd(x: Features, y: Others) -> float:
    """Unbiased squared maximum mean discrepancy, of at least two features each."""
    return (
        _mean_but_diagonal(_kernel(x, x))
        + _mean_but_diagonal(_kernel(y, y))
        - 2 * float(_kernel(x, y).mean())
    )


def _kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_but_diagonal(kernel):
    num = len(kernel)
    return float(kernel.sum() - kernel.trace()) / (num * (num - 1))


# Inception score


def inception_score(logits: Float[np.ndarray, 'num classes'], num_splits: int = 10) -> Estimate:
    """Mean over splits of consecutive samples, and its standard error (Salimans et al. 2016).

    Published scores are of 10 splits, with the standard deviation of one: sqrt(10) times this.
    """
    splits = np.array_split(np.asarray(logits, np.float64), min(num_splits, len(logits)))
    scores = np.array([_inception_score(split) for split in splits])
    error = scores.std(ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else np.nan
    return Estimate(float(scores.mean()), float(error))


def _inception_score(logits):
    log_p = scipy.special.log_softmax(logits, axis=1)
    log_marginal = scipy.special.logsumexp(log_p, axis=0) - np.log(len(log_p))
    return np.exp((np.exp(log_p) * (log_p - log_marginal)).sum(1).mean())


# Neighbours


class Neighbours(NamedTuple):
    """Shares of samples and of real images in each other's neighbourhoods."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbours(real: Features, samples: Others, k: int = 3, k_density: int = 5) -> Neighbours:
    """Precision and recall (Kynkaanniemi et al. 2019, eq. 1 and 2, k = 3); density and coverage
    (Naeem et al. 2020, eq. 3 and 5, k = 5).

    The neighbourhood of a feature reaches to the k-th nearest other one of its set, which is in it.
    Sets of unequal size are all used; values of sets of other sizes are not comparable. Either set
    has more features than k.
    """
    real, samples = np.float64(real), np.float64(samples)
    # Distances of nearby features far from 0 would lose digits.
    real, samples = real - real.mean(0), samples - real.mean(0)
    radii = squared_radii(real, (k, k_density))
    (sample_radii,) = squared_radii(samples, (k,))
    precise = np.zeros(len(samples), bool)
    recalled, covered = (np.zeros(len(real), bool) for _ in range(2))
    inside = 0
    for rows in _row_blocks(len(real)):
        squares = squared_distances(real[rows], samples)
        precise |= (squares <= radii[0][rows, None]).any(0)
        recalled[rows] = (squares <= sample_radii).any(1)
        near: Bool[np.ndarray, 'rows samples'] = squares <= radii[1][rows, None]
        covered[rows] = near.any(1)
        inside += near.sum()
    return Neighbours(
        precision=float(precise.mean()),
        recall=float(recalled.mean()),
        density=float(inside / (k_density * len(samples))),
        coverage=float(covered.mean()),
    )


def squared_radii(features: Features, ks: tuple[int, ...]) -> list[Float[np.ndarray, 'num']]:
    """For each k, the squared distance of every feature to the k-th nearest other one."""
    found = []
    for rows in _row_blocks(len(features)):
        squares = squared_distances(features[rows], features)
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = np.inf
        found.append(np.partition(squares, [k - 1 for k in ks], axis=1)[:, [k - 1 for k in ks]])
    return list(np.concatenate(found).T)


def squared_distances(x: Features, y: Others) -> Float[np.ndarray, 'num others']:
    """Squared distance of every pair, as one product of matrices."""
    squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    return np.maximum(squares, 0)


def _row_blocks(num: int) -> Iterable[slice]:
    return (slice(i, min(i + ROWS_AT_ONCE, num)) for i in range(0, num, ROWS_AT_ONCE))

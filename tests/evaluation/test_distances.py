"""Measures of samples against closed forms, brute force, and scipy in float64."""

import itertools

import numpy as np
import pytest
import scipy.linalg

from evaluation import distances

RNG = np.random.default_rng


def distance_by_sqrtm(mean_p, cov_p, mean_q, cov_q):
    """The textbook formula, for covariances of full rank."""
    root = scipy.linalg.sqrtm(cov_p @ cov_q).real
    return np.square(mean_p - mean_q).sum() + np.trace(cov_p + cov_q - 2 * root)


def random_gaussian(seed, dim):
    """Mean and root of a covariance of full rank."""
    rng = RNG(seed)
    return distances.Gaussian(rng.normal(0, 0.2, dim), rng.normal(0, dim**-0.5, (dim, dim)))


def draw(rng, p, num):
    return p.mean + rng.normal(size=(num, p.root.shape[1])) @ p.root.T


# Moments


@pytest.mark.parametrize('batch_size', [1, 7, 64, 1000])
def test_every_feature_counts_whatever_the_batch_size(batch_size):
    x = RNG(0).normal(3, 2, (500, 6)) * np.logspace(-3, 3, 6)
    found = distances.moments(x[:batch_size])
    for i in range(batch_size, len(x), batch_size):
        found = distances.merge(found, distances.moments(x[i : i + batch_size]))
    assert found.count == 500
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    deviations = x.std(0)
    expected = np.cov(x.T) / np.outer(deviations, deviations)
    found = found.covariance / np.outer(deviations, deviations)
    np.testing.assert_allclose(found, expected, atol=1e-12)


# Frechet distance


@pytest.mark.parametrize('dim', [3, 40])
def test_the_frechet_distance_is_that_of_the_textbook(dim):
    rng = RNG(1)
    x, y = (draw(rng, random_gaussian(seed, dim), 300) for seed in (2, 3))
    expected = distance_by_sqrtm(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    found = distances.frechet_distance(distances.fit(x), distances.fit(y))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('num', [8, 300])
def test_singular_covariances_are_measured_in_the_subspace_that_they_have(num):
    """Features in 5 of 60 dimensions, with few samples and many: distances do not know the 60."""
    rng = RNG(4)
    inside = [draw(rng, random_gaussian(seed, 5), num) for seed in (5, 6)]
    axes = np.linalg.qr(rng.normal(size=(60, 5)))[0]
    moments = [(x.mean(0), np.cov(x.T)) for x in inside]
    expected = distance_by_sqrtm(*moments[0], *moments[1])
    outside = [x @ axes.T for x in inside]
    by_fit = [distances.fit(x) for x in outside]
    by_moments = [distances.gaussian(distances.moments(x)) for x in outside]
    for p, q in itertools.product(*zip(by_fit, by_moments, strict=True)):
        np.testing.assert_allclose(distances.frechet_distance(p, q), expected, rtol=1e-6)


def test_fewer_samples_than_dimensions_are_measured_as_by_their_covariances():
    rng = RNG(7)
    x, y = rng.normal(size=(20, 50)), rng.normal(1, 2, (30, 50))
    found = distances.frechet_distance(distances.fit(x), distances.fit(y))
    # tr sqrt(S_1 S_2) from the 20 x 20 matrix that has its eigenvalues, in float64.
    a, b = (z - z.mean(0) for z in (x, y))
    squares = np.linalg.eigvalsh(a @ b.T @ b @ a.T / (19 * 29))
    expected = np.square(x.mean(0) - y.mean(0)).sum()
    expected += np.square(a).sum() / 19 + np.square(b).sum() / 29
    expected -= 2 * np.sqrt(np.maximum(squares, 0)).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('num', [10, 1000])
def test_a_set_is_at_no_distance_from_itself(num):
    p = distances.fit(RNG(8).normal(size=(num, 64)))
    assert distances.frechet_distance(p, p) < 1e-9


def test_a_constant_feature_does_not_matter():
    x, y = RNG(9).normal(size=(2, 100, 4))
    expected = distances.frechet_distance(distances.fit(x), distances.fit(y))
    x, y = (np.concatenate([z, np.full((100, 3), 0.1)], 1) for z in (x, y))
    found = distances.frechet_distance(distances.fit(x), distances.fit(y))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_distance_falls_to_the_closed_form_as_one_over_the_samples():
    """And a line in 1/N finds the closed form from few of them."""
    rng, p, q = RNG(10), random_gaussian(11, 16), random_gaussian(12, 16)
    closed = distance_by_sqrtm(p.mean, p.root @ p.root.T, q.mean, q.root @ q.root.T)
    np.testing.assert_allclose(distances.frechet_distance(p, q), closed, rtol=1e-6)
    runs = {
        num: np.array(
            [
                [
                    distances.frechet_distance(distances.fit(x), q) - closed,
                    distances.extrapolated_frechet_distance(x, q).at_infinity - closed,
                ]
                for x in (draw(rng, p, num) for _ in range(60))
            ]
        )
        for num in (60, 240, 960)
    }
    bias = {num: errors[:, 0].mean() for num, errors in runs.items()}
    noise = {num: errors[:, 0].std(ddof=1) / np.sqrt(60) for num, errors in runs.items()}
    for few, many in ((60, 240), (240, 960)):
        assert bias[few] > 4 * noise[few]
        # A quarter, to the next order in 1/N and four standard errors.
        assert abs(bias[many] - bias[few] / 4) < 0.05 * bias[few] + 4 * noise[many]
    assert abs(runs[960][:, 0]).max() < 0.3 * closed
    extrapolated = runs[240][:, 1]
    error = extrapolated.std(ddof=1) / np.sqrt(60)
    assert abs(extrapolated.mean()) < 0.1 * bias[240] + 4 * error


# Kernel distance


def test_the_squared_mmd_is_the_mean_over_pairs():
    x, y = RNG(13).normal(size=(6, 4)), RNG(14).normal(1, 1, (5, 4))

    def mean(a, b, skip):
        pairs = itertools.product(range(len(a)), range(len(b)))
        return np.mean([(a[i] @ b[j] / 4 + 1) ** 3 for i, j in pairs if i != j or not skip])

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    np.testing.assert_allclose(distances.squared_mmd(x, y), expected, rtol=1e-12)


def test_the_kernel_distance_has_no_bias_and_an_honest_error():
    """Of one distribution it is 0, within standard errors that spread as it does."""
    rng = RNG(15)
    found = np.array([distances.kernel_distance(*rng.normal(size=(2, 60, 8))) for _ in range(400)])
    values, errors = found.T
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(400)
    np.testing.assert_allclose(np.sqrt(np.square(errors).mean()), values.std(), rtol=0.15)


def test_the_kernel_distance_of_gaussians_is_the_closed_form():
    """In one dimension: E (x y + 1)^3 = 1 + 3 m n + 3 m2 n2 + m3 n3, of raw moments m and n."""
    rng = RNG(16)
    mean, std = 0.5, 1.2
    x, y = rng.normal(size=(4000, 1)), rng.normal(mean, std, (6000, 1))
    raw = np.array([mean, mean**2 + std**2, mean**3 + 3 * mean * std**2])
    closed = np.array([3, 3, 1]) @ np.square(raw - np.array([0, 1, 0]))
    found = distances.kernel_distance(x, y)
    assert abs(found.value - closed) < 4 * found.standard_error < 0.5 * closed


@pytest.mark.parametrize('nums', [(2, 2), (3, 50), (1001, 4)])
def test_the_kernel_distance_is_of_any_two_sets(nums):
    x, y = (RNG(17).normal(size=(num, 3)) for num in nums)
    assert np.isfinite(distances.kernel_distance(x, y).value)


# Inception score


def test_the_inception_score_counts_classes():
    certain = 50 * np.eye(7)[np.arange(70) % 7]
    np.testing.assert_allclose(distances.inception_score(certain, 2).value, 7, rtol=1e-9)
    np.testing.assert_allclose(distances.inception_score(np.zeros((30, 7))).value, 1, rtol=1e-9)


def test_the_inception_score_is_of_every_image():
    logits = RNG(18).normal(0, 2, (11, 4))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = []
    for part in (p[:6], p[6:]):
        kl = [sum(row * np.log(row / part.mean(0))) for row in part]
        scores.append(np.exp(np.mean(kl)))
    found = distances.inception_score(logits, 2)
    np.testing.assert_allclose(found.value, np.mean(scores), rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, abs(np.subtract(*scores)) / 2, rtol=1e-9)


# Neighbours


def neighbours_one_by_one(real, samples, k, k_density):
    def distance(a, b):
        return np.sqrt(np.square(a - b).sum())

    def radius(points, i, k):
        return sorted(distance(points[i], p) for j, p in enumerate(points) if j != i)[k - 1]

    def inside(x, points, k):
        return [distance(x, p) <= radius(points, i, k) for i, p in enumerate(points)]

    near = np.array([inside(y, real, k_density) for y in samples])
    return (
        np.mean([any(inside(y, real, k)) for y in samples]),
        np.mean([any(inside(x, samples, k)) for x in real]),
        near.sum() / (k_density * len(samples)),
        near.any(0).mean(),
    )


@pytest.mark.parametrize(('num_real', 'num_samples'), [(20, 20), (23, 11), (9, 30)])
def test_neighbours_are_those_of_brute_force(num_real, num_samples, monkeypatch):
    monkeypatch.setattr(distances, 'ROWS_AT_ONCE', 8)
    real = RNG(19).normal(100, 1, (num_real, 2))
    samples = RNG(20).normal(100.5, 1, (num_samples, 2))
    expected = neighbours_one_by_one(real, samples, 3, 5)
    assert 0 < min(expected[:2]) < 1
    np.testing.assert_allclose(distances.neighbours(real, samples), expected, rtol=1e-12)


def test_neighbours_tell_what_is_amiss():
    """Half of the modes: precise, little recalled. Far away: nothing of either."""
    rng = RNG(21)
    modes = np.array([[0.0, 0.0], [20.0, 0.0]])
    real = modes[np.arange(400) % 2] + rng.normal(size=(400, 2))
    half = rng.normal(size=(400, 2))
    found = distances.neighbours(real, half)
    assert found.precision > 0.95
    assert 0.4 < found.recall < 0.51
    assert 0.4 < found.coverage < 0.51
    assert distances.neighbours(real, half + 500) == (0, 0, 0, 0)


def test_one_outlier_moves_precision_more_than_density():
    """Naeem et al. 2020, fig. 2: a ball around an outlier holds many samples, counted for few."""
    rng = RNG(22)
    real = np.concatenate([rng.normal(size=(200, 2)), [[30.0, 0.0]]])
    samples = rng.normal([20.0, 0.0], 1, (200, 2))
    found = distances.neighbours(real, samples)
    assert found.precision > 0.9
    assert found.density < 0.25

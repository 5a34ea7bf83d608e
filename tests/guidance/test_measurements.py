"""Linear measurements: transposes, inverses, and what each of them keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from guidance import measurements

SHAPE = (6, 8, 3)
RNG = np.random.default_rng(0)
MASK = RNG.random(SHAPE[:2]) < 0.4

MEASUREMENTS = {
    'known_pixels': measurements.known_pixels(MASK, 3),
    'grey': measurements.grey(),
    'luma': measurements.grey((0.299, 0.587, 0.114)),
    'block_mean': measurements.block_mean(6, 8, 2),
    'gaussian_blur': measurements.gaussian_blur(6, 8, 0.7),
    'tall': measurements.separable(RNG.normal(size=(7, 6)), RNG.normal(size=(8, 8))),
    'matrix': measurements.matrix(RNG.normal(size=(5, 144)), SHAPE),
    'tall_matrix': measurements.matrix(RNG.normal(size=(150, 144)), SHAPE),
}
each = pytest.mark.parametrize('a', MEASUREMENTS.values(), ids=MEASUREMENTS)
X = jax.random.normal(jax.random.key(0), (2, *SHAPE))


def dense(a):
    """A as a matrix [y, x], from what it makes of every unit vector."""
    units = jnp.eye(X[0].size).reshape(-1, *SHAPE)
    return np.asarray(a.measure(units), np.float64).reshape(X[0].size, -1).T


@each
def test_the_adjoint_is_the_transpose(a):
    """<A x, y> = <x, A^T y>."""
    y = jax.random.normal(jax.random.key(1), a.measure(X).shape)
    left, right = jnp.sum(a.measure(X) * y), jnp.sum(X * a.adjoint(y))
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


@each
def test_the_pseudo_inverse_is_that_of_the_matrix(a):
    y = jax.random.normal(jax.random.key(1), a.measure(X).shape)
    truth = np.asarray(y, np.float64).reshape(2, -1) @ np.linalg.pinv(dense(a), rcond=1e-3).T
    found = a.pseudo_inverse(y).reshape(2, -1)
    # Rounding errors grow with the condition number, up to 1000 here.
    np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-3 * np.abs(truth).max())


@each
def test_the_pseudo_inverse_inverts_on_the_range(a):
    """A A^+ y = y for measurements y = A x."""
    y = a.measure(X)
    np.testing.assert_allclose(a.measure(a.pseudo_inverse(y)), y, atol=1e-4)


@each
def test_solving_with_noise_is_that_of_the_matrix(a):
    """(gain A A^T + noise I)^-1 y for y = A x, with a gain for each image."""
    gain, noise = jnp.array([0.5, 2.0]), 0.1
    y = a.measure(X)
    gram = dense(a) @ dense(a).T
    found = np.asarray(a.solve(y, gain, noise)).reshape(2, -1)
    for i in range(2):
        system = float(gain[i]) * gram + noise * np.eye(len(gram))
        truth = np.linalg.solve(system, np.asarray(y[i], np.float64).ravel())
        np.testing.assert_allclose(found[i], truth, atol=1e-4 * np.abs(truth).max())


def test_known_pixels_are_those_of_the_mask():
    a = MEASUREMENTS['known_pixels']
    np.testing.assert_array_equal(a.measure(X), X[:, MASK])
    np.testing.assert_array_equal(a.pseudo_inverse(X[:, MASK]), jnp.where(MASK[..., None], X, 0))


def test_grey_is_the_mean_of_the_channels_and_one_picture_of_it():
    a = MEASUREMENTS['grey']
    y = a.measure(X)
    np.testing.assert_allclose(y[..., 0], X.mean(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a.picture(y), jnp.repeat(y, 3, -1), rtol=1e-5)


def test_block_means_are_shown_as_blocks():
    a = MEASUREMENTS['block_mean']
    truth = X.reshape(2, 3, 2, 4, 2, 3).mean((2, 4))
    np.testing.assert_allclose(a.measure(X), truth, atol=1e-5)
    blocks = truth.repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(a.picture(truth), blocks, atol=1e-5)


@pytest.mark.parametrize('std', [0.7, 2.0])
def test_blur_is_that_of_scipy(std):
    a = measurements.gaussian_blur(6, 8, std)
    truth = ndimage.gaussian_filter(
        np.asarray(X, np.float64), (0, std, std, 0), mode='reflect', radius=int(np.ceil(4 * std))
    )
    np.testing.assert_allclose(a.measure(X), truth, atol=1e-5)
    np.testing.assert_array_equal(a.picture(a.measure(X)), a.measure(X))

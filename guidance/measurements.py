"""Linear measurements y = A x + noise of images: inpainting, colourisation, super-resolution, blur.

A measurement is known by A, A^T and the eigenvectors of A A^T, of which everything else follows:

    (a A A^T + b I)^-1 y,        A^+ y = A^T (A A^T)^-1 y.

Images and measurements are batches, `[batch, ...]`. A is the same for all images of a batch.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sde_lib import expand
from shapes import Measured, State

# Singular values of A below this share of the largest are taken for zero: what they lose cannot be
# told from rounding errors in float32.
RELATIVE_RANK = 1e-3


def _same(y: Measured) -> Measured:
    return y


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A linear map A and its transpose, and A A^T = U diag(gram) U^T.

    `gram` is a number, or broadcasts against one measurement in the basis of U; `to_basis` is U^T
    and `from_basis` U. `show` makes of a measurement an image to look at.
    """

    measure: Callable[[State], Measured]
    adjoint: Callable[[Measured], State]
    gram: float | np.ndarray = 1.0
    to_basis: Callable[[Measured], Measured] = _same
    from_basis: Callable[[Measured], Measured] = _same
    show: Callable[[Measured], State] | None = None

    def solve(self, y: Measured, gain: Array | float, noise: Array | float) -> Measured:
        """(gain A A^T + noise I)^-1 y on the range of A, 0 beside it; `gain` may be [batch]."""
        gram = np.asarray(self.gram, np.float32)
        in_range = gram > RELATIVE_RANK**2 * gram.max()
        coefficients = self.to_basis(y)
        denominator = expand(jnp.asarray(gain), y) * gram + noise
        solved = jnp.where(in_range, coefficients / jnp.where(in_range, denominator, 1.0), 0.0)
        return self.from_basis(solved)

    def pseudo_inverse(self, y: Measured) -> State:
        """A^+ y: of all images with this measurement (or the nearest to it), the smallest."""
        return self.adjoint(self.solve(y, 1.0, 0.0))

    def picture(self, y: Measured) -> State:
        """A measurement as an image."""
        return self.pseudo_inverse(y) if self.show is None else self.show(y)


def known_pixels(mask: Bool[np.ndarray, 'height width'], channels: int) -> Measurement:
    """The pixels where `mask` is True, one after another, all channels of each."""
    (known,) = np.nonzero(mask.ravel())
    height, width = mask.shape

    def measure(x):
        return x.reshape(len(x), -1, channels)[:, known]

    def adjoint(y):
        flat = jnp.zeros((len(y), mask.size, channels), y.dtype)
        return flat.at[:, known].set(y).reshape(len(y), height, width, channels)

    return Measurement(measure, adjoint)


def grey(weights: Sequence[float] = (1 / 3, 1 / 3, 1 / 3)) -> Measurement:
    """The weighted mean of the channels; the plain mean as in Song et al. 2021, appendix I.3."""
    row = np.float32(weights)

    def measure(x):
        return jnp.sum(x * row, axis=-1, keepdims=True)

    return Measurement(measure, lambda y: y * row, gram=float(np.sum(row**2)))


def separable(
    rows: Float[np.ndarray, 'y_height height'], columns: Float[np.ndarray, 'y_width width']
) -> Measurement:
    """rows X columns^T of every channel X: whatever treats height and width apart."""
    (u, s, _), (v, t, _) = (
        np.linalg.svd(np.float64(a), full_matrices=True) for a in (rows, columns)
    )
    s, t = (np.pad(a, (0, len(b) - len(a))) for a, b in ((s, u), (t, v)))
    rows, columns, u, v = (np.float32(a) for a in (rows, columns, u, v))

    def along_both(a, b, x):
        return jnp.einsum('ih,bhwc,jw->bijc', a, x, b, precision='highest')

    return Measurement(
        measure=lambda x: along_both(rows, columns, x),
        adjoint=lambda y: along_both(rows.T, columns.T, y),
        gram=np.float32(np.outer(s, t) ** 2)[:, :, None],
        to_basis=lambda y: along_both(u.T, v.T, y),
        from_basis=lambda y: along_both(u, v, y),
    )


def block_mean(height: int, width: int, factor: int) -> Measurement:
    """The mean of each square of `factor` pixels, which divides height and width."""
    rows, columns = (
        np.kron(np.eye(side // factor), np.full((1, factor), 1 / factor))
        for side in (height, width)
    )
    return separable(rows, columns)


def gaussian_blur(height: int, width: int, std: float) -> Measurement:
    """Convolution with a Gaussian of `std` pixels; images go on mirrored beyond their edges."""
    blurred = separable(*(_blur_matrix(side, std) for side in (height, width)))
    return dataclasses.replace(blurred, show=_same)


def _blur_matrix(side: int, std: float) -> Float[np.ndarray, 'side side']:
    reach = math.ceil(4 * std)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / std) ** 2)
    positions = np.arange(side)[:, None] + np.arange(-reach, reach + 1)
    period = positions % (2 * side)
    mirrored = np.minimum(period, 2 * side - 1 - period)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], mirrored), kernel / kernel.sum())
    return matrix


def matrix(a: Float[np.ndarray, 'm n'], shape: tuple[int, ...]) -> Measurement:
    """Any matrix, of images of `shape` as vectors of n values."""
    u, s, _ = np.linalg.svd(np.float64(a), full_matrices=True)
    s = np.pad(s, (0, len(u) - len(s)))
    a, u = np.float32(a), np.float32(u)

    def product(y, b):
        return jnp.matmul(y, b, precision='highest')

    return Measurement(
        measure=lambda x: product(x.reshape(len(x), -1), a.T),
        adjoint=lambda y: product(y, a).reshape(len(y), *shape),
        gram=np.float32(s**2),
        to_basis=lambda y: product(y, u),
        from_basis=lambda y: product(y, u.T),
    )

"""What a mean over images, dequantisations and probes owes its error to.

The values are nested: y_ijk = mean + image_i + dequantisation_ij + probe_ijk, of n images, J
dequantisations of each, K probes of each dequantisation. With S2 the unbiased sample variances

    W = mean_ij S2_k(y_ijk)               estimates  probe
    B = mean_i  S2_j(mean_k y_ijk)        estimates  dequantisation + probe / K
    A = S2_i(mean_jk y_ijk)               estimates  image + dequantisation / J + probe / (J K)

and the variance of the mean is A / n, in three parts: of the data (A - B / J) / n, of the
dequantisation (B - W / K) / (n J), and of the probes W / (n J K). An estimate below 0 is 0.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class ErrorSplit(NamedTuple):
    """The standard error of a mean, and its parts, whose squares add up to its own (unless an
    estimate was below 0).

    A part is nan where one value cannot tell of it (one dequantisation; one probe); it is then in
    the part to its left. With one image, `total` and `data` are nan.
    """

    total: float
    data: float
    dequantization: float
    probes: float


def split(values: Float[np.ndarray, 'images draws probes'], exact: bool) -> ErrorSplit:
    """The parts for `values`; with an `exact` divergence there is one 'probe', and no such part."""
    n, num_draws, num_probes = values.shape
    by_draw = values.mean(axis=2, dtype=np.float64)
    within = 0.0 if exact else _variance(values, axis=2).mean()
    between = _variance(by_draw, axis=1).mean()
    total = _variance(by_draw.mean(axis=1), axis=0) / n
    # What is not known stays in the part above it.
    probes = np.nan_to_num(within) / (n * num_draws * num_probes)
    dequantization = 0.0 if num_draws == 1 else max(between / (n * num_draws) - probes, 0.0)
    data = max(total - dequantization - probes, 0.0)
    return ErrorSplit(
        math.sqrt(total),
        math.sqrt(data),
        math.sqrt(dequantization) if num_draws > 1 else math.nan,
        math.sqrt(probes) if not math.isnan(within) else math.nan,
    )


def _variance(values: np.ndarray, axis: int) -> np.ndarray | np.floating:
    """Unbiased sample variance; nan of one value."""
    if values.shape[axis] == 1:
        return np.full(np.delete(values.shape, axis), np.nan)
    return values.var(axis=axis, ddof=1, dtype=np.float64)

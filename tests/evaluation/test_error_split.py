"""The parts of a standard error, against values whose variances are known."""

import numpy as np
import pytest

from evaluation import error_split


def nested(shape, data, dequantization, probes, seed=0):
    """Values [..., images, draws, probes] whose parts have these standard deviations."""
    draw = np.random.default_rng(seed).normal
    return (
        data * draw(size=(*shape[:-2], 1, 1))
        + dequantization * draw(size=(*shape[:-1], 1))
        + probes * draw(size=shape)
    )


def test_the_parts_are_those_that_the_values_were_made_of():
    n, num_draws, num_probes = 20_000, 4, 3
    found = error_split.split(nested((n, num_draws, num_probes), 3.0, 2.0, 4.0), exact=False)
    # Of 20,000 values and more, a deviation is known to 1 %; of differences of them, to 3 %.
    np.testing.assert_allclose(found.data, 3 / np.sqrt(n), rtol=0.03)
    np.testing.assert_allclose(found.dequantization, 2 / np.sqrt(n * num_draws), rtol=0.03)
    np.testing.assert_allclose(found.probes, 4 / np.sqrt(n * num_draws * num_probes), rtol=0.03)
    np.testing.assert_allclose(found.total**2, sum(part**2 for part in found[1:]), rtol=1e-6)


def test_the_total_is_how_far_means_scatter():
    values = nested((1000, 50, 2, 2), 1.0, 1.0, 1.0)
    found = [error_split.split(v, exact=False).total for v in values]
    np.testing.assert_allclose(np.mean(found), values.mean(axis=(1, 2, 3)).std(), rtol=0.1)


@pytest.mark.parametrize(
    ('shape', 'exact', 'unknown'),
    [
        ((500, 1, 1), False, {'dequantization', 'probes'}),
        ((500, 1, 3), False, {'dequantization'}),
        ((500, 3, 1), False, {'probes'}),
        ((500, 3, 1), True, set()),
        ((500, 1, 1), True, {'dequantization'}),
        ((1, 2, 2), False, {'total', 'data'}),
    ],
)
def test_what_one_value_cannot_tell_is_nan(shape, exact, unknown):
    found = error_split.split(nested(shape, 1.0, 1.0, 1.0), exact)
    assert {name for name, part in found._asdict().items() if np.isnan(part)} == unknown
    if 'total' not in unknown:
        np.testing.assert_allclose(found.total**2, np.nansum(np.square(found[1:])), rtol=1e-6)
    assert exact == (found.probes == 0)


def test_an_estimate_below_zero_is_zero():
    """Draws that agree, of probes that do not: less variance between draws than probes explain."""
    values = np.array([[[-1.0, 1.0], [-1.0, 1.0]], [[0.0, 2.0], [0.0, 2.0]]])
    assert error_split.split(values, exact=False).dequantization == 0

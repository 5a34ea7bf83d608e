"""The recorded outputs of the published implementations, in tests/data (origin: see its README)."""

import pathlib

import numpy as np

DATA = pathlib.Path(__file__).parents[1] / 'data'
# The agreement that the recordings were made for.
RTOL, ATOL = 2e-4, 2e-5


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of one recording."""
    with np.load(DATA / f'{name}.npz') as file:
        return dict(file)


def score_fn(x, t):
    """The score that the recordings of SDEs, steps and losses were made with."""
    return -x / (1 + t.reshape(-1, *[1] * (x.ndim - 1)))

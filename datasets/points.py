"""Vectors as data: draws from a law whose density is known, or those of an .npz file."""

import dataclasses
import os

import jax
import numpy as np
from jaxtyping import Float, Int

from datasets.mixtures import Mixture
from datasets.stored import DataError
from storage.files import BROKEN_NPZ

# Draws of a law, of either split.
NUM = {'train': 20_000, 'test': 5_000}


@dataclasses.dataclass(frozen=True)
class Points:
    """Vectors, and the law that they are drawn from, if it is known."""

    x: Float[np.ndarray, 'num dim']
    law: Mixture | None = None

    def __len__(self) -> int:
        return len(self.x)

    def gather(self, indices: Int[np.ndarray, 'batch']) -> dict[str, np.ndarray]:
        """The vectors with these indices, as `x`."""
        return {'x': self.x[indices]}


def load(source: str, split: str, test_fraction: float) -> Points:
    """The vectors of a split: of LAWS by name, or `npz:PATH`, a file with `points` [num, dim], of
    which the last are for tests, or with `train_points` and `test_points`.

    Raises DataError for what is neither.
    """
    if source in LAWS:
        law, seed = LAWS[source], list(NUM).index(split)
        return Points(np.asarray(law.sample(jax.random.key(seed), NUM[split])), law)
    kind, _, path = source.partition(':')
    if kind != 'npz' or not path:
        known = ', '.join(LAWS)
        raise DataError(f'points.source {source!r}: no vectors; npz:PATH, or one of {known} needed')
    return Points(_of_file(source, os.path.expanduser(path), split, test_fraction))


def _of_file(
    source: str, path: str, split: str, test_fraction: float
) -> Float[np.ndarray, 'num dim']:
    try:
        with np.load(path) as file:
            found = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f'points.source {source}: there is no such file') from None
    except BROKEN_NPZ as error:
        raise DataError(
            f'points.source {source} is no .npz file of plain arrays ({error})'
        ) from error
    name = 'points' if 'points' in found else f'{split}_points'
    if name not in found:
        raise DataError(
            f'points.source {source} has the keys {", ".join(sorted(found))}; points, or '
            'train_points and test_points, are needed'
        )
    x = found[name]
    if x.ndim != 2 or x.dtype.kind != 'f' or not np.isfinite(x).all():
        raise DataError(
            f'points.source {source}: {name} is {x.dtype} {x.shape}; finite floats [num, dim] '
            'needed'
        )
    if name == 'points':
        num_train = len(x) - max(1, round(test_fraction * len(x)))
        x = x[:num_train] if split == 'train' else x[num_train:]
    return x.astype(np.float32)


LAWS = {
    # In the plane; none of its parts is at a stable point of the double well, or its mirror image.
    'trio': Mixture(np.array([[-1.2, -0.3], [0.2, 1.3], [0.6, -0.7]], np.float32), 0.25)
}

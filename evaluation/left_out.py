"""Images that are none: their solver did not come to its end, or they are not finite.

Programs say so by arrays, one number for each image; what is here counts them, and says it in one
line. Means over the others would be of an easier set of images: a measure with images left out has
no numbers but how many there are.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from evaluation.quantities import LOWER, Quantity
from shapes import Flags
from solvers.endings import Ending

IMAGES_LEFT_OUT = 'images_left_out'
# The names of the arrays that tell.
ARRAYS = (*Ending._fields, 'is_finite')


def arrays(ending: Ending, *values: Float[Array, 'batch *shape']) -> dict[str, Array]:
    """What a program returns, by the names of ARRAYS: how its images ended, and whether all of
    these values of an image are finite.
    """
    return {**ending._asdict(), 'is_finite': are_finite(*values)}


def are_finite(*values: Float[Array, 'batch *shape']) -> Flags:
    """Of each image, whether all of these values of its are finite."""
    flags = [jnp.isfinite(each).reshape(len(each), -1).all(axis=1) for each in values]
    return jnp.stack(flags).all(axis=0)


def kept(found: Mapping[str, np.ndarray]) -> Bool[np.ndarray, 'num']:
    """Which images are some."""
    return found['is_done'] & found['is_finite']


def line(name: str, found: Mapping[str, np.ndarray], remedy: str, params: Any) -> str | None:
    """What is to be said of the images that are left out of `name`, if there are any; `remedy` is
    what a user can do about a solver that does not come to its end.
    """
    is_done, num = found['is_done'], len(found['is_done'])
    parts = []
    if not is_done.all():
        t, steps = found['t_last'][~is_done], found['steps'][~is_done]
        advice = f'; {remedy}' if remedy else ''
        parts.append(
            f'{num - is_done.sum():,} are not finished, and stood still at t = '
            f'{_range(t, ".3g")} after {_range(steps, ",")} steps{advice}'
        )
    num_broken = (is_done & ~found['is_finite']).sum()
    if num_broken:
        parts.append(f'{num_broken:,} are not finite')
    if not parts:
        return None
    broken_params = int(_num_not_finite(params))
    if broken_params:
        parts.append(f'of the parameters of the checkpoint {broken_params:,} are not finite')
    num_left_out = num - kept(found).sum()
    return f'{name}: {num_left_out:,} of {num:,} images are left out: {"; ".join(parts)}'


def quantity(found: Mapping[str, np.ndarray], of: str | None = None) -> Quantity:
    """How many images are left out."""
    return Quantity(IMAGES_LEFT_OUT, int((~kept(found)).sum()), better=LOWER, of=of)


def _range(values: np.ndarray, form: str) -> str:
    low, high = (format(end.item(), form) for end in (values.min(), values.max()))
    return low if low == high else f'{low} to {high}'


@jax.jit
def _num_not_finite(params: Any) -> Array:
    return sum(jnp.sum(~jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params))

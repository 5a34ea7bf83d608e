"""Short names for what results depend on: plain values, and arrays on devices."""

import functools
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32


def fingerprint(given: Any) -> str:
    """Ten hexadecimal digits that change with any of these plain values."""
    text = json.dumps(given, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def of_arrays(tree: PyTree) -> str:
    """Ten hexadecimal digits that change with any number of a tree of arrays, and with its form."""
    leaves, form = jax.tree.flatten(tree)
    digest = hashlib.sha256(str(form).encode())
    for leaf in map(np.asarray, leaves):
        digest.update(f'{leaf.dtype} {leaf.shape}'.encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()[:10]


@jax.jit
def checksum(params: PyTree[Array]) -> UInt32[Array, '']:
    """Changes with any parameter; the same however the arrays lie on devices."""
    words = (
        jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32).sum(dtype=jnp.uint32)
        for leaf in jax.tree.leaves(params)
    )
    # Odd factors, so that parameters that change places count.
    weighted = (jnp.uint32(2 * i + 1) * word for i, word in enumerate(words))
    return functools.reduce(jnp.add, weighted)

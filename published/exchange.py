"""Between published checkpoint files and training states."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from published import formats
from published.formats import check_writable, write
from shapes import OneKey
from training import EMA, TrainState

__all__ = ['check_writable', 'read', 'write']


def read(path: pathlib.Path, init: Callable[[OneKey], TrainState]) -> tuple[TrainState, str]:
    """The state that a published checkpoint is of, for a run whose first state `init(key)` is, and
    words for what the file had.

    Raises InputError if the file cannot be read, or is of another network.
    """
    network = formats.outline(lambda key: init(key).params)
    found = formats.read(path, network.parts)
    params = formats.fit(found.params, network, f'params of {path}')
    average = formats.fit(found.ema_params, network, f'params_ema of {path}')
    abstract = jax.eval_shape(init, jax.random.key(0))
    # Optimisers of Adam's kind begin with zeros.
    opt_state = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), abstract.opt_state)
    if found.moments:
        mean, square = (
            formats.fit(flat, network, f'the optimiser of {path}')
            for flat in (found.moments.mean, found.moments.square)
        )
        count = jnp.int32(found.moments.count)
        opt_state = optax.tree.set(opt_state, mu=mean, nu=square, count=count)
    optimizer = "Adam's moments" if found.moments else 'a fresh optimiser'
    state = TrainState(jnp.int32(found.step), jnp.int32(0), params, opt_state, {EMA: average})
    return state, f'parameters, their moving average and {optimizer}'

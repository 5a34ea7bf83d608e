"""Between published checkpoint files and training states."""

import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from choices import InputError
from published import edm_networks, formats
from published.formats import check_writable, content, write
from shapes import OneKey
from training import EMA, TrainState

__all__ = ['check_writable', 'content', 'read', 'write']


def read(
    path: pathlib.Path,
    init: Callable[[OneKey], TrainState],
    values: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[TrainState, str]:
    """The state that a published checkpoint is of, for a run whose first state `init(key)` is, and
    words for what the file had.

    `values` are the fields of the run's config, by dotted names. Raises InputError if the file
    cannot be read, or is of another network.
    """
    network = formats.outline(lambda key: init(key).params)
    found = formats.read(path, network.parts)
    if values and (differing := edm_networks.misfits(found.fields, values)):
        raise InputError(f'{path} does not fit the config: {"; ".join(differing)}')
    params = formats.fit(found.params, network, f'params of {path}')
    average = formats.fit(found.ema_params, network, f'params_ema of {path}')
    abstract = jax.eval_shape(init, jax.random.key(0))
    # Optimisers of Adam's kind begin with zeros.
    opt_state = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), abstract.opt_state)
    # Gradient descent without moments has no use for them.
    has_moments = found.moments and optax.tree.get(opt_state, 'mu') is not None
    if has_moments:
        mean, square = (
            formats.fit(flat, network, f'the optimiser of {path}')
            for flat in (found.moments.mean, found.moments.square)
        )
        count = jnp.int32(found.moments.count)
        opt_state = optax.tree.set(opt_state, mu=mean, nu=square, count=count)
    optimizer = "Adam's moments" if has_moments else 'a fresh optimiser'
    # Some files have one set of parameters.
    had = 'parameters' if found.params is found.ema_params else 'parameters, their moving average'
    state = TrainState(jnp.int32(found.step), jnp.int32(0), params, opt_state, {EMA: average})
    return state, f'{had} and {optimizer}'

"""The training state, the optimiser, and one step of training.

    uint8 batch -> augment -> loss of the score -> gradient -> optimiser -> moving average

A run is a pure function of its seed: step k uses the k-th batch and the key fold_in(key(seed), k).
A step whose loss or gradient is not finite counts, and changes nothing else.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

Params = Any


class TrainState(NamedTuple):
    """All that a step reads and writes.

    `step` counts the steps done, `skipped` those of them, up to the last one, that in a row changed
    no parameter.
    """

    step: Int[Array, '']
    skipped: Int[Array, '']
    params: Params
    opt_state: optax.OptState
    ema_params: Params


class Metrics(NamedTuple):
    """What a step reports; `skipped` is that of the state after it."""

    loss: Float[Array, '']
    grad_norm: Float[Array, '']
    skipped: Int[Array, '']


def create_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step. The moving average starts at the initial parameters."""
    ema_params = jax.tree.map(jnp.copy, params)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, jnp.copy(zero), params, optimizer.init(params), ema_params)


def create_optimizer(
    lr: float,
    warmup: int,
    decay_steps: int,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    grad_clip: float,
) -> optax.GradientTransformation:
    """Adam behind global-norm clipping, with linear warm-up and, if asked for, cosine decay.

    `warmup` and `decay_steps` count updates; `decay_steps = 0` keeps the rate after the warm-up,
    otherwise it falls to 0 by that update. `grad_clip <= 0` does not clip; `weight_decay` is
    decoupled from the gradient. An update that clips needs the argument `grad_norm`.
    """
    schedule = optax.constant_schedule(lr)
    if decay_steps:
        schedule = optax.cosine_decay_schedule(lr, max(decay_steps - warmup, 1))
    if warmup:
        ramp = optax.linear_schedule(lr / warmup, lr, max(warmup - 1, 1))
        schedule = optax.join_schedules([ramp, schedule], [warmup])
    clip = clip_by_global_norm(grad_clip) if grad_clip > 0 else optax.identity()
    return optax.chain(clip, optax.adamw(schedule, beta1, beta2, eps, weight_decay=weight_decay))


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformationExtraArgs:
    """Scales a gradient whose norm is above `max_norm` down to it; the norm is the argument
    `grad_norm` of its update.

    optax's computes the norm once more, makes a clipped gradient, and then chooses between the two:
    an update takes 1.7 times as long with it (benchmarks/update.py).
    """

    def clip(updates, state, params, *, grad_norm, **_):
        scale = max_norm / jnp.maximum(grad_norm, max_norm)
        return optax.tree.scale(scale, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, clip)


def make_gradient(
    loss_fn: Callable[[Params, Key[Array, ''], Any], Float[Array, '']], seed: int
) -> Callable[[TrainState, Any], tuple[Float[Array, ''], Params]]:
    """`gradient(state, batch) -> (loss, gradient)` of step `state.step`.

    `loss_fn(params, key, batch)` is the mean loss of a batch.
    """

    def gradient(state, batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        return jax.value_and_grad(loss_fn)(state.params, key, batch)

    return gradient


def make_step(
    gradient: Callable[[TrainState, Any], tuple[Float[Array, ''], Params]],
    optimizer: optax.GradientTransformation,
    ema_rate: float,
    ema_warmup: bool,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """`step(state, batch) -> (state, metrics)`: one update on the batch of step `state.step`.

    The moving average decays by `ema_rate` an update; with `ema_warmup` by no more than (1 + step)
    / (10 + step), so that it soon forgets the initial parameters. If the loss or the norm of its
    gradient is not finite, parameters, average and the optimiser's state stay as they are.
    """

    optimizer = optax.with_extra_args_support(optimizer)

    def update(state, grads, grad_norm):
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, grad_norm=grad_norm
        )
        params = optax.apply_updates(state.params, updates)
        rate = (
            jnp.minimum(ema_rate, (1 + state.step) / (10 + state.step)) if ema_warmup else ema_rate
        )
        ema_params = optax.incremental_update(params, state.ema_params, 1 - rate)
        return TrainState(
            state.step + 1, jnp.zeros_like(state.skipped), params, opt_state, ema_params
        )

    def skip(state, grads, grad_norm):
        return state._replace(step=state.step + 1, skipped=state.skipped + 1)

    def step(state, batch):
        loss, grads = gradient(state, batch)
        grad_norm = optax.tree.norm(grads)
        is_finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        # Branches write arrays in place. A choice between both results would hold both: it takes
        # three times as long.
        state = lax.cond(is_finite, update, skip, state, grads, grad_norm)
        return state, Metrics(loss, grad_norm, state.skipped)

    return step


def scan_steps(step: Callable) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Several steps as one program: batches and metrics have a leading axis of steps."""
    return lambda state, batches: lax.scan(step, state, batches)

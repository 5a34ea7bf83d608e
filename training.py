"""The training state, the optimiser, and one step of training.

    uint8 batch -> augment -> loss of the score -> gradient -> optimiser -> moving average

A run is a pure function of its seed: step k uses the k-th batch and the key fold_in(key(seed), k).
A step whose loss or gradient is not finite counts, and changes nothing else.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Int

from shapes import OneKey, Scalar

Params = Any
Batch = Any
# (params, key, batch) -> the mean loss of a batch.
Loss = Callable[[Params, OneKey, Batch], Scalar]

EMA = 'ema'


class TrainState(NamedTuple):
    """All that a step reads and writes.

    `step` counts the steps done, `skipped` those of them, up to the last one, that in a row changed
    no parameter. `averages` are moving averages of the parameters, by name.
    """

    step: Int[Array, '']
    skipped: Int[Array, '']
    params: Params
    opt_state: optax.OptState
    averages: dict[str, Params]

    @property
    def evaluated(self) -> Params:
        """The parameters that are tested, drawn with and measured."""
        return self.averages[EMA]


class Metrics(NamedTuple):
    """What a step reports; `skipped` is that of the state after it. An experiment may have a tuple
    of its own, with further numbers."""

    loss: Scalar
    grad_norm: Scalar
    skipped: Int[Array, '']


@dataclasses.dataclass(frozen=True)
class MovingAverage:
    """An exponential moving average that decays by `rate` an update; with `warmup` by no more than
    (1 + step) / (10 + step), so that it soon forgets the initial parameters.
    """

    rate: float
    warmup: bool = False

    def update(self, average: Params, params: Params, step: Int[Array, '']) -> Params:
        """The average after update `step`, which made `params`."""
        rate = jnp.minimum(self.rate, (1 + step) / (10 + step)) if self.warmup else self.rate
        return optax.incremental_update(params, average, 1 - rate)


@dataclasses.dataclass(frozen=True)
class Update:
    """How parameters follow the gradient of a loss: one step of a run.

    Step k uses the key fold_in(key(seed), k). An update that clips needs the gradient's norm, which
    the optimiser is given as `grad_norm`.
    """

    optimizer: optax.GradientTransformation
    averages: Mapping[str, MovingAverage]
    seed: int

    def init(self, params: Params) -> TrainState:
        """The state before the first step. Averages start at the initial parameters."""
        averages = {name: jax.tree.map(jnp.copy, params) for name in self.averages}
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, jnp.copy(zero), params, self.optimizer.init(params), averages)

    def step(self, loss: Loss, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One update on the batch of step `state.step`. If the loss or the norm of its gradient is
        not finite, the parameters, their averages and the optimiser's state stay as they are.
        """
        key = jax.random.fold_in(jax.random.key(self.seed), state.step)
        value, grads = jax.value_and_grad(loss)(state.params, key, batch)
        grad_norm = optax.tree.norm(grads)
        is_finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
        # Branches write arrays in place. A choice between both results would hold both: it takes
        # three times as long.
        state = lax.cond(is_finite, self._apply, _skip, state, grads, grad_norm)
        return state, Metrics(value, grad_norm, state.skipped)

    def _apply(self, state: TrainState, grads: Params, grad_norm: Scalar) -> TrainState:
        optimizer = optax.with_extra_args_support(self.optimizer)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, grad_norm=grad_norm
        )
        params = optax.apply_updates(state.params, updates)
        averages = {
            name: average.update(state.averages[name], params, state.step)
            for name, average in self.averages.items()
        }
        return TrainState(
            state.step + 1, jnp.zeros_like(state.skipped), params, opt_state, averages
        )


def _skip(state: TrainState, grads: Params, grad_norm: Scalar) -> TrainState:
    return state._replace(step=state.step + 1, skipped=state.skipped + 1)


def create_adam(
    lr: float,
    warmup: int,
    decay_steps: int,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    grad_clip: float,
    drop_at: Sequence[int] = (),
    drop: float = 0.1,
    rule: Callable[..., optax.GradientTransformation] = optax.adamw,
) -> optax.GradientTransformation:
    """Adam, or another rule of its arguments, behind global-norm clipping, with the rates of
    `rates`.

    `grad_clip <= 0` does not clip; `weight_decay` is decoupled from the gradient. An update that
    clips needs the argument `grad_norm`.
    """
    schedule = rates(lr, warmup, decay_steps, drop_at, drop)
    chosen = rule(schedule, beta1, beta2, eps, weight_decay=weight_decay)
    return optax.chain(_clip(grad_clip), chosen)


def create_sgd(
    lr: float,
    warmup: int,
    decay_steps: int,
    weight_decay: float,
    grad_clip: float,
    drop_at: Sequence[int] = (),
    drop: float = 0.1,
    substeps: int = 1,
) -> optax.GradientTransformation:
    """Gradient descent without momentum, behind global-norm clipping, with the rates of `rates`.

    x <- x - rate / l (g + weight_decay x) with l = `substeps`, updates that take the place of one:
    the rates, and all that counts updates in them, are of l together. So it is the optimiser of
    SVAG too (gradient_noise/weights.py). An update that clips needs the argument `grad_norm`.
    """
    schedule = rates(lr, warmup, decay_steps, drop_at, drop)

    def of_substep(count):
        return schedule(count // substeps) / substeps

    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(_clip(grad_clip), decay, optax.sgd(of_substep))


# By what parameters follow gradients. Adamax has the largest gradient in the place of the root;
# svag is sgd with weights in the loss.
OPTIMIZERS = {
    'adam': create_adam,
    'adamax': functools.partial(create_adam, rule=optax.adamaxw),
    'sgd': create_sgd,
    'svag': create_sgd,
}


def rates(
    lr: float, warmup: int, decay_steps: int, drop_at: Sequence[int] = (), drop: float = 0.1
) -> optax.Schedule:
    """Linear warm-up to `lr` over the first `warmup` updates, and, if asked for, cosine decay to 0
    by update `decay_steps` (0: none), and a factor `drop` from each of the updates `drop_at` on.
    """
    schedule = optax.constant_schedule(lr)
    if decay_steps:
        schedule = optax.cosine_decay_schedule(lr, max(decay_steps - warmup, 1))
    if warmup:
        ramp = optax.linear_schedule(lr / warmup, lr, max(warmup - 1, 1))
        schedule = optax.join_schedules([ramp, schedule], [warmup])
    if not drop_at:
        return schedule
    return lambda count: schedule(count) * drop ** jnp.sum(count >= jnp.array(drop_at))


def _clip(grad_clip: float) -> optax.GradientTransformation:
    return clip_by_global_norm(grad_clip) if grad_clip > 0 else optax.identity()


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


def run_steps(step: Callable, state: TrainState, batches: Batch) -> tuple[TrainState, Any]:
    """Several steps; batches and metrics have a leading axis of steps."""
    return lax.scan(step, state, batches)

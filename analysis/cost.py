"""What training costs, from the shapes of its arrays: nothing is compiled or run.

Operations are counted in the traced program (its jaxpr): two for each multiply-add of a convolution
or a matrix product. Those on the zeros of a padding count too, because hardware does them. All else
is left out: normalisation, activations, FIR filters and the optimiser do a few operations for each
number that they read, and wait for memory. A gradient that computes activations again (remat)
counts them again.

The memory of activations is that of all arrays that the backward pass needs of the forward pass, as
JAX derives it. A compiler can keep less, computing elementwise operations again, and buffers come
on top: for small networks XLA's CPU backend takes as much within a tenth. It takes the same with
remat, of which it saves nothing; other backends do.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var

from models.convolution import conv2d_p, input_gradient_p, weight_gradient_p


class Step(NamedTuple):
    """One evaluation of a loss and its gradient."""

    flops: int
    activations: int  # bytes


class Cost(NamedTuple):
    """What an experiment asks of its devices."""

    state: Any  # training.TrainState of shapes; each device has all of it, or what a layout says
    forward_flops: int  # of one example
    step: Step
    batch_size: int
    num_devices: int


def of_training(
    init: Callable, loss: Callable, batch_shapes: Callable, batch_size: int, num_devices: int
) -> Cost:
    """What training costs on so many devices, from the shapes of a batch, `batch_shapes(size)`;
    `init(key)` is the first state and `loss(params, key, batch, train)` the loss of each example.
    """
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(init, key)

    def mean_loss(params, key, batch):
        return loss(params, key, batch, True).mean()

    forward_flops = flops(mean_loss, state.params, key, batch_shapes(1))
    step = training_step(mean_loss, state.params, key, batch_shapes(batch_size))
    return Cost(state, forward_flops, step, batch_size, num_devices)


# Operations


def flops(function: Callable, *args: Any) -> int:
    """Operations of `function(*args)`; arguments can be shapes (jax.ShapeDtypeStruct).

    Of branches the most expensive one counts. Raises ValueError for a convolution or product in a
    loop of unknown length.
    """
    return _count(jax.make_jaxpr(function)(*args))


def training_step(loss_fn: Callable, params: Any, *args: Any) -> Step:
    """The cost of `loss_fn(params, *args)` and its gradient with respect to `params`."""

    def value_and_grad(params, *args):
        loss, pull_back = jax.vjp(lambda params: loss_fn(params, *args), params)
        return jax.tree.leaves(pull_back), loss, pull_back(jnp.ones_like(loss))

    closed, (kept, *_) = jax.make_jaxpr(value_and_grad, return_shape=True)(params, *args)
    jaxpr = closed.jaxpr
    # Arguments are no activations, and neither are parameters in another shape or type. The same
    # array may be kept for several purposes.
    given = set(jaxpr.invars[len(jax.tree.leaves(params)) :])
    arrays = _dependents(jaxpr, given) - given
    arrays &= {var for var in jaxpr.outvars[: len(kept)] if isinstance(var, Var)}
    return Step(_count(jaxpr), num_bytes([var.aval for var in arrays]))


def _dependents(jaxpr: Jaxpr, given: set[Var]) -> set[Var]:
    """`given`, and all variables that are computed from them."""
    found = set(given)
    for eqn in jaxpr.eqns:
        if any(isinstance(var, Var) and var in found for var in eqn.invars):
            found.update(eqn.outvars)
    return found


def _count(jaxpr: Jaxpr | ClosedJaxpr) -> int:
    return sum(map(_count_equation, jaxpr.eqns))


def _count_equation(eqn: JaxprEqn) -> int:
    if eqn.primitive in MULTIPLY_ADDS:
        a, b = (var.aval.shape for var in eqn.invars)
        return 2 * MULTIPLY_ADDS[eqn.primitive](a, b, eqn.outvars[0].aval.shape, eqn.params)
    inner = [_count(jaxpr) for jaxpr in _inner(eqn)]
    if eqn.primitive is lax.cond_p:
        return max(inner)
    if eqn.primitive is lax.while_p and any(inner):
        raise ValueError('a convolution or product in a loop of unknown length')
    return sum(inner) * (eqn.params['length'] if eqn.primitive is lax.scan_p else 1)


def _inner(eqn: JaxprEqn) -> list[Jaxpr | ClosedJaxpr]:
    """The programs that an equation calls: of jit, loops, branches, custom derivatives, remat.

    Each once, though it is of both types, which are one from JAX 0.11 on.
    """
    found = jax.tree.leaves(list(eqn.params.values()))
    return [jaxpr for jaxpr in found if isinstance(jaxpr, Jaxpr | ClosedJaxpr)]


def _product(a, b, out, params):
    (contracted, _), _ = params['dimension_numbers']
    return math.prod(out) * math.prod(a[i] for i in contracted)


def _lax_convolution(a, b, out, params):
    features = b[params['dimension_numbers'].rhs_spec[0]]
    return math.prod(out) * math.prod(b) // features


# From the shapes of two operands and the output, and the parameters of an equation.
MULTIPLY_ADDS = {
    conv2d_p: lambda x, w, y, params: math.prod(y) * math.prod(w[:3]),
    # As a convolution, which it is on accelerators; as products it has those of conv2d.
    input_gradient_p: lambda y, w, x, params: math.prod(x) * math.prod(w) // w[2],
    weight_gradient_p: lambda x, y, w, params: math.prod(y) * math.prod(w[:3]),
    lax.dot_general_p: _product,
    lax.conv_general_dilated_p: _lax_convolution,
}


# Memory


def num_bytes(tree: Any) -> int:
    """The memory of all arrays of a tree; they can be shapes."""
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def num_bytes_of_each(tree: Any) -> int:
    """The memory of one device for shapes, whose layout, if they have one, splits them."""
    shards = [
        jax.ShapeDtypeStruct(a.sharding.shard_shape(a.shape), a.dtype) if a.sharding else a
        for a in jax.tree.leaves(tree)
    ]
    return num_bytes(shards)


# Reports


NOTE = """Operations: convolutions and matrix products alone, two a multiply-add, padding included.
Activations: what the gradient keeps, before the compiler fuses operations."""


def report(cost: Cost) -> str:
    """A table for people: binary units for memory, decimal ones for operations."""
    examples, n = f'{cost.batch_size} examples', cost.num_devices
    each = 'each device' if n == 1 else f'each of {n} devices'
    state = cost.state
    params, averages, optimizer = map(num_bytes, (state.params, state.averages, state.opt_state))
    kept = cost.step.activations
    held = sum(map(num_bytes_of_each, (state.params, state.averages, state.opt_state)))
    # The gradient is as large as the parameters, which a step has whole on each device.
    gathered = params if num_bytes_of_each(state.params) < params else 0
    device = held + gathered + params + kept // n
    rows = [
        ('parameters', f'{num_params(state.params):,}'),
        *((f'  {name}', f'{size:,}') for name, size in parts(state.params)),
        ('operations', ''),
        ('  forward pass, one example', operations(cost.forward_flops)),
        (f'  training step, {examples}', operations(cost.step.flops)),
        (f'  training step, {each}', operations(cost.step.flops // n)),
        ('memory', ''),
        ('  parameters', memory(params)),
        ('  moving average', memory(averages)),
        ('  optimiser', memory(optimizer)),
        (f'  activations, {examples}', memory(kept)),
        (f'  activations, {each}', memory(kept // n)),
        *([(f'  of the first three, {each}', memory(held))] if gathered else []),
        (f'  all of these and the gradient, {each}', memory(device)),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f'{name:<{width}}  {value:>13}'.rstrip() for name, value in rows]
    return '\n'.join([*lines, NOTE])


def num_params(params: Any) -> int:
    """The number of all parameters."""
    return sum(math.prod(a.shape) for a in jax.tree.leaves(params))


def parts(params: dict) -> list[tuple[str, int]]:
    """Parameters of the modules at the top, those of one type together, the largest first."""
    kinds = {name: re.sub(r'_\d+$', '', name) for name in params}
    modules, sizes = Counter(kinds.values()), Counter()
    for name, kind in kinds.items():
        sizes[kind] += num_params(params[name])
    return [(f'{modules[kind]} {kind}', size) for kind, size in sizes.most_common()]


def memory(size: int) -> str:
    """Bytes with a binary unit."""
    return _with_unit(size, 1024, ('B', 'KiB', 'MiB', 'GiB', 'TiB'))


def operations(count: int) -> str:
    """Operations with a decimal unit."""
    return _with_unit(count, 1000, ('FLOP', 'kFLOP', 'MFLOP', 'GFLOP', 'TFLOP', 'PFLOP'))


def _with_unit(value, base, units):
    i = min(int(math.log(max(value, 1), base)), len(units) - 1)
    return f'{value / base**i:.4g} {units[i]}'

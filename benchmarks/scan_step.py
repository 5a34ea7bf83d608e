"""A training step alone and in a scan of ten, with our gradients of convolutions and JAX's own.

    python benchmarks/scan_step.py [--repeats 9] [--batch 64]

A scanned step should cost what a step costs. It does where the gradients of convolutions are
forward convolutions (models/convolution.py); with the gradients that JAX derives, XLA's CPU backend
leaves its fast path inside the loop. The ways are timed in turn in one process, so that their ratio
holds on a busy machine too. Derived gradients are timed once, with two steps: each takes seconds.
"""

import argparse
import functools
import pathlib
import statistics
import sys
import time
import types
from unittest import mock

import jax
import jax.numpy as jnp
import optax
from jax import lax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import models
from models import convolution


def derived_conv2d(x, w, *, padding):
    """The convolution of JAX, with the gradients that JAX derives."""
    numbers = ('NHWC', 'HWIO', 'NHWC')
    return lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=numbers)


def train_step(model, optimizer, state, batch):
    """One step of denoising score matching; returns the new (params, opt_state) and the loss."""
    params, opt_state = state
    x, labels, noise = batch

    def loss_fn(params):
        y = model.apply({'params': params}, x + labels[:, None, None, None] * noise, labels)
        return jnp.mean((y - noise) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return (optax.apply_updates(params, updates), opt_state), loss


def compiled(step, state, batches):
    """A step for each batch from `state`, one by one and in a scan, as functions of no argument."""
    each = [jax.tree.map(lambda a, i=i: a[i], batches) for i in range(batches[0].shape[0])]
    one = jax.jit(step).lower(state, each[0]).compile()
    many = jax.jit(lambda state, batches: lax.scan(step, state, batches)).lower(state, batches)
    return {
        'alone': lambda: functools.reduce(lambda state, batch: one(state, batch)[0], each, state),
        'scanned': functools.partial(many.compile(), state, batches),
    }


def milliseconds(ways, num_steps, repeats):
    """Median time of a step in each of the ways, which take turns; of several, not the first."""
    times = {way: [] for way in ways}
    for _ in range(repeats):
        for way, run in ways.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[way].append(1e3 * (time.perf_counter() - start) / num_steps)
    return {way: statistics.median(seconds[1:] or seconds) for way, seconds in times.items()}


def experiment(batch, num_steps):
    """The step of a small network on `batch` images of 28x28, a state, and `num_steps` batches."""
    fields = {'nf': 16, 'ch_mult': (1, 2, 2), 'num_res_blocks': 1, 'attn_resolutions': ()}
    model = models.create('ncsnpp', **fields, dropout=0.0)
    optimizer = optax.adam(2e-4)
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (num_steps, batch, 28, 28, 1))
    labels = jax.random.uniform(keys[1], (num_steps, batch))
    params = model.init(keys[3], x[0], labels[0])['params']
    step = functools.partial(train_step, model, optimizer)
    return step, (params, optimizer.init(params)), (x, labels, jax.random.normal(keys[2], x.shape))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=9)
    parser.add_argument('--batch', type=int, default=64)
    args = parser.parse_args()

    ways = compiled(*experiment(args.batch, num_steps=10))
    rows = {'ours': milliseconds(ways, 10, args.repeats)}
    derived = types.SimpleNamespace(bind=derived_conv2d)
    with mock.patch.object(convolution, 'conv2d_p', derived):
        ways = compiled(*experiment(args.batch, num_steps=2))
    rows['derived by JAX'] = milliseconds(ways, 2, repeats=1)

    print('| gradients of convolutions | step alone, ms | step in a scan, ms | ratio |')
    print('| --- | --- | --- | --- |')
    for name, row in rows.items():
        ratio = row['scanned'] / row['alone']
        print(f'| {name} | {row["alone"]:.0f} | {row["scanned"]:.0f} | {ratio:.2f} |')


if __name__ == '__main__':
    main()

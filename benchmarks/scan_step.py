"""One training step a dispatch against ten in a scan, with our convolution and with derived
gradients.

    python benchmarks/scan_step.py [--repeats 15] [--batch 64]

A scanned step should cost what a step costs. It does where the gradients of convolutions are
forward convolutions (models/convolution.py); with the gradients that JAX derives, XLA's CPU backend
leaves its fast path inside the loop. All variants are timed in turn in one process, so their ratios
hold on a busy machine too.
"""

import argparse
import functools
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import optax
from jax import lax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import models
from models import convolution

SCANNED = 10


def derived_conv2d(x, w, padding='SAME'):
    """The same convolution, with the gradients that JAX derives."""
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
    """(scanned, single): functions of (state, batches) that take SCANNED steps."""
    first = jax.tree.map(lambda a: a[0], batches)
    one = jax.jit(step).lower(state, first).compile()
    many = jax.jit(lambda state, batches: lax.scan(step, state, batches)).lower(state, batches)

    def single(state, batches):
        for i in range(SCANNED):
            state, loss = one(state, jax.tree.map(lambda a, i=i: a[i], batches))
        return state, loss

    return many.compile(), single


def median_times(functions, arguments, repeats):
    """Median seconds per step of each function, all of them run once in every repeat."""
    times = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            if repeat:
                times[name].append((time.perf_counter() - start) / SCANNED)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--batch', type=int, default=64)
    args = parser.parse_args()

    model = models.create('ncsnpp', nf=16, ch_mult=(1, 2, 2), num_res_blocks=1, dropout=0.0)
    optimizer = optax.adam(2e-4)
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (SCANNED, args.batch, 28, 28, 1)
    x = jax.random.normal(keys[0], shape)
    labels = jax.random.uniform(keys[1], shape[:2])
    batches = (x, labels, jax.random.normal(keys[2], shape))
    params = model.init(keys[3], x[0], labels[0])['params']
    state = (params, optimizer.init(params))

    functions = {}
    step = functools.partial(train_step, model, optimizer)
    functions['ours', 'scanned'], functions['ours', 'single'] = compiled(step, state, batches)
    convolution.conv2d, ours = derived_conv2d, convolution.conv2d
    step = functools.partial(train_step, model, optimizer)
    functions['derived', 'scanned'], functions['derived', 'single'] = compiled(step, state, batches)
    convolution.conv2d = ours

    times = median_times(functions, (state, batches), args.repeats)
    print('| gradients of convolutions | one step a dispatch, ms | ten in a scan, ms | ratio |')
    print('| --- | --- | --- | --- |')
    for name in ('ours', 'derived'):
        single, scanned = times[name, 'single'], times[name, 'scanned']
        print(f'| {name} | {1e3 * single:.1f} | {1e3 * scanned:.1f} | {scanned / single:.2f} |')


if __name__ == '__main__':
    main()

"""The update of parameters alone: as a branch of the program, and as a choice between two results.

    python -m benchmarks.update [--repeats 8]

Of the published CIFAR-10 NCSN++ with 63 million parameters, on one device: clipping, Adam, moving
average, and the check that skips a gradient that is not finite. The branch is
`training.make_step`; the choice is `where` of the states before and after. Both work in place.
"""

import argparse
import importlib

import jax
import jax.numpy as jnp
import optax

import training
from benchmarks import machine, networks
from experiments import experiment

MODULE, FIELDS, _ = networks.CASES['NCSN++ (VE), nf = 128, batch 4']


def branch(optimizer, ema_rate):
    """The update of a training step, for a gradient that is given."""

    def gradient(state, grads):
        return jnp.float32(0), grads

    return training.make_step(gradient, optimizer, ema_rate, ema_warmup=False)


def choice(optimizer, ema_rate):
    """The same, made always, and taken if the gradient is finite."""

    def step(state, grads):
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, grad_norm=norm)
        params = optax.apply_updates(state.params, updates)
        average = optax.incremental_update(params, state.ema_params, 1 - ema_rate)
        after = state._replace(params=params, opt_state=opt_state, ema_params=average)
        return jax.tree.map(lambda a, b: jnp.where(jnp.isfinite(norm), a, b), after, state), norm

    return step


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=8)
    args = parser.parse_args()
    config = importlib.import_module(MODULE).get_config()
    config.model.update(FIELDS)
    optimizer = experiment.create_optimizer(config)
    params = jax.jit(experiment.create_experiment(config).init_params)(jax.random.key(0))
    grads = networks.noisy(params)
    print(f'Medians of {args.repeats}; {machine.name()}\n')
    print('| | ms | compilation, s | temporaries, MiB |\n| --- | --- | --- | --- |')
    for create in (choice, branch):
        # Copies, since the steps write over what they are given.
        state = training.create_state(jax.tree.map(jnp.copy, params), optimizer)
        step = create(optimizer, config.optim.ema_rate)
        program = networks.compiled(step, state, grads, repeated=True)
        seconds = networks.medians({'step': program.run}, args.repeats)['step']
        mebibytes = program.temporaries / 2**20
        row = f'{1e3 * seconds:.0f} | {program.compile_seconds:.1f} | {mebibytes:.0f}'
        print(f'| {create.__name__} | {row} |', flush=True)


if __name__ == '__main__':
    main()

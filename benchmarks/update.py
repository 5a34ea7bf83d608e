"""The update of parameters alone: as a branch of the program, and as a choice between two results.

    python -m benchmarks.update [--repeats 8]

Of the published CIFAR-10 NCSN++ with 63 million parameters, on one device: clipping, Adam, moving
average, and the check that skips a gradient that is not finite. The branch is
`training.Update.step`; the choice is `where` of the states before and after. Both work in place.
"""

import argparse
import functools
import importlib

import jax
import jax.numpy as jnp
import optax

from benchmarks import machine, networks
from experiments import kinds, reading
from training import EMA, Update

MODULE, FIELDS, _ = networks.CASES['NCSN++ (VE), nf = 128, batch 4']


@jax.custom_vjp
def loss(params, key, grads):
    """A loss whose gradient is given, and is not computed."""
    return jnp.float32(0)


loss.defvjp(
    lambda params, key, grads: (jnp.float32(0), grads), lambda grads, _: (grads, None, None)
)


def branch(update: Update):
    """The update of a training step."""
    return functools.partial(update.step, loss)


def choice(update: Update):
    """An update that is made always, and taken if the gradient is finite."""

    def step(state, grads):
        norm = optax.tree.norm(grads)
        updates, opt_state = update.optimizer.update(
            grads, state.opt_state, state.params, grad_norm=norm
        )
        params = optax.apply_updates(state.params, updates)
        average = update.averages[EMA].update(state.evaluated, params, state.step)
        after = state._replace(params=params, opt_state=opt_state, averages={EMA: average})
        return jax.tree.map(lambda a, b: jnp.where(jnp.isfinite(norm), a, b), after, state), norm

    return step


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=8)
    args = parser.parse_args()
    config = importlib.import_module(MODULE).get_config()
    config.model.update(FIELDS)
    update = reading.create_update(config)
    params = jax.jit(kinds.create(config).model.init_params)(jax.random.key(0))
    grads = networks.noisy(params)
    print(f'Medians of {args.repeats}; {machine.name()}\n')
    print('| | ms | compilation, s | temporaries, MiB |\n| --- | --- | --- | --- |')
    for create in (choice, branch):
        # Copies, since the steps write over what they are given.
        state = update.init(jax.tree.map(jnp.copy, params))
        program = networks.compiled(create(update), state, grads, repeated=True)
        seconds = networks.medians({'step': program.run}, args.repeats)['step']
        mebibytes = program.temporaries / 2**20
        row = f'{1e3 * seconds:.0f} | {program.compile_seconds:.1f} | {mebibytes:.0f}'
        print(f'| {create.__name__} | {row} |', flush=True)


if __name__ == '__main__':
    main()

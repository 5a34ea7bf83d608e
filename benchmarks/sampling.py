"""Sampling digits by several methods, our network against the published formulation of it.

    python -m benchmarks.sampling [--workdir runs/vp] [--repeats 3]

Samplers are the same programs, with the demo's network in two formulations (published_network.py)
that take turns: ours on all cores, as devices, and the published one on one device, whose threads
use all cores. Shares are of the rate of a 2048^3 product in the same process; operations are those
that XLA counts in the published forward pass, for each evaluation.

Without a workdir the network has initial parameters, and noise on them.
"""

import argparse
import functools
import pathlib

import jax
import jax.numpy as jnp

import keys
from benchmarks import likelihood, machine, networks, published_network
from configs.vp import mnist_ddpmpp
from devices import sharding
from experiments import image_drawing, kinds

BATCH = 64
METHODS = {
    'PC, 100 steps, reverse diffusion and Langevin': {
        'method': 'pc',
        'steps': 100,
        'predictor': 'reverse_diffusion',
        'corrector': 'langevin',
    },
    'DPM-Solver++ 2M, 20 steps': {'method': 'dpmpp_2m', 'steps': 20, 'grid': 'log_snr'},
    'ODE, Tsit5, tolerance 1e-5': {'method': 'ode', 'adaptive': True},
}


def measure(fields: dict, params, forward, rate: float, repeats: int) -> str:
    """The cells of a method's row."""
    config = mnist_ddpmpp.get_config()
    config.sampling.update(fields)
    model = kinds.create(config).model
    mesh = sharding.create_mesh()
    indices, one = jnp.arange(BATCH), jax.devices()[0]

    def program(placement, batch_placement):
        sampler = image_drawing.create_sampler(config, model.sde, config.sampling.method)

        def sample(params, key, indices):
            image_keys = keys.of_images(key, indices)
            return sampler(image_keys, model.process(params), model.image_shape)

        args = jax.device_put((params, jax.random.key(0)), placement)
        args = *args, jax.device_put(indices, batch_placement)
        return functools.partial(jax.jit(sample).lower(*args).compile(), *args)

    runs = {'ours': program(sharding.copied(mesh), sharding.by_batch(mesh))}
    with published_network.formulation():
        runs['published'] = program(one, one)
    nfe = {name: float(run().nfe.max()) for name, run in runs.items()}
    seconds = networks.medians(runs, repeats)
    cells = [
        f'{nfe["ours"]:.0f}',
        *(f'{seconds[name]:.2f} s' for name in runs),
        *(f'{nfe[name] * forward / seconds[name] / rate:.0%}' for name in runs),
        f'{BATCH / seconds["ours"]:.1f}',
        f'{seconds["published"] / seconds["ours"]:.2f}',
    ]
    return ' | '.join(cells)


def forward_operations(params) -> float:
    """Those of the published formulation, for a batch."""
    model = kinds.create(mnist_ddpmpp.get_config()).model
    x, t = jnp.zeros((BATCH, *model.image_shape)), jnp.full(BATCH, 0.5)
    with published_network.formulation():
        lowered = jax.jit(lambda params, *at: model.process(params).score(*at)).lower(params, x, t)
    return lowered.cost_analysis()['flops']


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', type=pathlib.Path)
    parser.add_argument('--repeats', type=int, default=3)
    args = parser.parse_args()
    sharding.use_cores(BATCH)
    config = mnist_ddpmpp.get_config()
    experiment = kinds.create(config)
    params = likelihood.parameters(config, experiment, sharding.create_mesh(), args.workdir)
    forward, rate = forward_operations(params), networks.peak(2 * args.repeats)
    print(
        f'{BATCH} digits, medians of {args.repeats}, peak {rate / 1e9:.0f} GFLOP/s, '
        f'{forward / 1e9:.2f} GFLOP an evaluation; {machine.name()}\n'
    )
    print(
        '| method | evaluations | ours | published | ours, share of peak | published, share '
        '| ours, images a second | times faster |\n' + '| --- ' * 8 + '|'
    )
    for name, fields in METHODS.items():
        print(f'| {name} | {measure(fields, params, forward, rate, args.repeats)} |', flush=True)


if __name__ == '__main__':
    main()

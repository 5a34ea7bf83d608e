"""What an energy costs beside a score network, and what Metropolis steps make of step sizes.

python -m benchmarks.energies cost [--repeats 4]     a training step of the demo's network
python -m benchmarks.energies mala                   the law of Langevin chains; seconds
python -m benchmarks.energies dimensions             acceptance by the stated step rule; seconds
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

import sde_lib
from benchmarks import machine
from configs.vp import mnist_ddpmpp
from datasets.mixtures import Mixture
from experiments import kinds
from parameterization import Process, energy_process
from solvers import correctors

STEPS = 5  # of training in one program, as main.py has them
SNRS = 0.05, 0.1, 0.2, 0.4, 0.6, 0.8
CHAINS, LENGTH, BURNT = 4000, 150, 50
DIMENSIONS = 2, 16, 64, 784, 3072


def cost(repeats: int) -> None:
    """Seconds of the processor for a step of training, energies and score in turns."""
    print(f'Least of {repeats}, interleaved; batch 32; {machine.name()}\n')
    print('| | ms of the processor | to the score network | temporaries, MiB | compilation, s |')
    print('| --- ' * 5 + '|')
    programs = {}
    for energy in ('none', 'norm', 'inner'):
        config = mnist_ddpmpp.get_config()
        config.model.energy = energy
        experiment = kinds.create(config)
        state = jax.jit(experiment.init)(jax.random.key(0))
        pixels = jax.random.randint(jax.random.key(1), (32, 28, 28, 1), 0, 256).astype(jnp.uint8)
        batch = {'image': pixels, 'label': jnp.zeros(32, jnp.int32)}

        @jax.jit
        def train(state, batch, step=experiment.step):
            return jax.lax.scan(lambda state, _: step(state, batch), state, None, STEPS)

        before = time.perf_counter()
        compiled = train.lower(state, batch).compile()
        seconds = time.perf_counter() - before
        temporaries = compiled.memory_analysis().temp_size_in_bytes / 2**20
        run = functools.partial(compiled, state, batch)
        programs[energy] = run, temporaries, seconds
    least = dict.fromkeys(programs, np.inf)
    for _ in range(repeats):
        for energy, (run, *_) in programs.items():
            before = time.process_time()
            jax.block_until_ready(run())
            least[energy] = min(least[energy], (time.process_time() - before) / STEPS)
    for energy, (_, temporaries, seconds) in programs.items():
        ratio = least[energy] / least['none']
        row = f'{1e3 * least[energy]:.0f} | {ratio:.2f} | {temporaries:.0f} | {seconds:.1f}'
        print(f'| `model.energy = {energy}` | {row} |', flush=True)


def mala() -> None:
    """Second moments of chains started in p_t of a mixture in the plane, and how many moved."""
    sde, t = sde_lib.VP(), 0.3
    data = Mixture(jnp.array([[1.5, 0.0], [-0.8, 1.0], [-0.4, -1.2]]), 0.3)

    def log_density(x, t):
        return jax.vmap(lambda x, t: data.log_prob(x[None], sde, t)[0])(x, t)

    process, times = energy_process(sde, log_density), jnp.full(CHAINS, t)
    alpha, sigma = sde.alpha(times[0]), sde.sigma(times[0])
    expected = float(alpha**2 * (jnp.sum(data.means**2, 1).mean() + 2 * data.std**2) + 2 * sigma**2)
    key_data, key_noise, key_chain = jax.random.split(jax.random.key(0), 3)
    noise = jax.random.normal(key_noise, (CHAINS, 2))
    start = sde.perturb(data.sample(key_data, CHAINS), times, noise)
    print('| `snr` | step, in sigma^2 | unadjusted | adjusted | accepted |\n' + '| --- ' * 5 + '|')
    for snr in SNRS:
        cells = []
        for step in (correctors.AnnealedLangevin(snr), correctors.Metropolis(snr)):
            states = jax.jit(functools.partial(chain, step, process))(start, times, key_chain)
            of_chains = np.asarray(jnp.sum(states[BURNT:] ** 2, axis=2).mean(axis=0)) / expected - 1
            error = of_chains.std() / np.sqrt(CHAINS)
            cells.append(f'{100 * of_chains.mean():+.2f} ± {100 * error:.2f} %')
        moved = float(jnp.mean(jnp.any(states[1:] != states[:-1], axis=2)))
        print(f'| {snr:g} | {2 * snr**2:.3g} | {" | ".join(cells)} | {100 * moved:.0f} % |')


def chain(step, process: Process, x: jax.Array, t: jax.Array, key: jax.Array) -> jax.Array:
    """The states after each step."""

    def advance(x, key):
        noise, *more = jax.random.normal(key, (step.evaluations, *x.shape))
        x = step(process, noise, x, t, t, *more).x
        return x, x

    return jax.lax.scan(advance, x, jax.random.split(key, LENGTH))[1]


def dimensions() -> None:
    """How many proposals are accepted of a normal law, at snr = 0.82 dim^(-1/6) and at 0.16."""
    normal = energy_process(sde_lib.VP(), lambda x, t: -0.5 * jnp.sum(x**2, axis=1))
    step = jax.jit(correctors.metropolis_step)
    print('| dim | 0.82 dim^(-1/6) | accepted | accepted at 0.16 |\n' + '| --- ' * 4 + '|')
    for dim in DIMENSIONS:
        x, noise, chance = jax.random.normal(jax.random.key(0), (3, CHAINS, dim))
        by_rule = 0.82 * dim ** (-1 / 6)
        shares = [
            float(step(normal, noise, chance, x, size, size).accepted.mean())
            for size in (jnp.full(CHAINS, 2 * snr**2) for snr in (by_rule, 0.16))
        ]
        cells = ' | '.join(f'{100 * share:.0f} %' for share in shares)
        print(f'| {dim:,} | {by_rule:.2f} | {cells} |', flush=True)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('table', choices=('cost', 'mala', 'dimensions'))
    parser.add_argument('--repeats', type=int, default=4)
    args = parser.parse_args()
    if args.table == 'cost':
        cost(args.repeats)
    else:
        {'mala': mala, 'dimensions': dimensions}[args.table]()


if __name__ == '__main__':
    main()

"""How good a score each objective gives, and how wrong differences are against their length.

    python -m benchmarks.objective_errors plane [--steps 2000] [--seeds 5] > plane.md
    python -m benchmarks.objective_errors step [--workdir runs/demo] > step.md
    python -m benchmarks.objective_errors noise > noise.md

`plane`: eight Gaussians on a circle, VP, an energy and a score network of about the same size. All
objectives train for the same number of steps, from the same initial parameters and with the same
data for each seed. A number is the Fisher divergence to the exact score, sigma^2 |score - exact|^2
/ 2 in the mean over times, of the moving average of the parameters. Six minutes on two cores.

`step`: the gradient in the parameters by differences, against that of the same objective by forward
mode, at the same states and directions, both in float32: |difference| / |gradient|. Of the networks
of `plane`, trained by denoising, and of the demo's in a workdir. One minute.

`noise`: how much the gradient of an objective scatters from draw to draw. Data are those of
`plane`, and the score is c times the exact one: a number is the standard deviation of the
derivative of the loss in c, where its mean is 0, over that of denoising with the same weighting and
times. Its square says how many times as many draws are needed. Seconds.
"""

import argparse
import functools
import pathlib
import time

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

import losses
import parameterization
import sde_lib
from benchmarks import machine
from configs import recorded
from datasets.mixtures import Mixture
from devices import sharding
from experiments import kinds, run_files
from models.energy import EnergyMLP
from models.residual_mlp import ResidualMLP
from parameterization import Process, energy_process

SDE, T_MIN, BATCH = sde_lib.VP(), 0.01, 256
ANGLES = jnp.arange(8) * jnp.pi / 4
DATA = Mixture(jnp.stack([jnp.cos(ANGLES), jnp.sin(ANGLES)], 1), 0.1)
ANCHORS = {'fd_sliced': 'sliced', 'fd_sliced_vr': 'sliced_vr', 'fd_denoising': 'denoising'}


class Energy:
    """A perceptron as log density."""

    name, network, shape = 'energy', EnergyMLP(width=64, num_layers=3), (2,)

    def process(self, params) -> Process:
        """The process of its gradient."""

        def network(x, labels):
            return self.network.apply({'params': params}, x, labels)

        return energy_process(SDE, functools.partial(parameterization.noise_energy, SDE, network))


class Score:
    """A residual perceptron as noise, for images of one pixel."""

    name, network, shape = 'score network', ResidualMLP(width=64, num_blocks=2), (1, 1, 2)

    def process(self, params) -> Process:
        """The process of its output."""

        def network(x, labels):
            return self.network.apply({'params': params}, x[:, None, None], labels)[:, 0, 0]

        return Process(SDE, functools.partial(parameterization.noise, SDE, network))


def train(kind, name: str, num_steps: int, seeds: int) -> tuple[list, float]:
    """The moving average of the parameters of each seed, and seconds without compilation."""
    objective = losses.OBJECTIVES[name]('sigma2', 'stratified', T_MIN)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, num_steps))

    def loss(params, key):
        key_data, key_loss = jax.random.split(key)
        return objective(kind.process(params), key_loss, DATA.sample(key_data, BATCH)).mean()

    def step(state, key):
        params, average, opt_state = state
        updates, opt_state = optimizer.update(jax.grad(loss)(params, key), opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, optax.incremental_update(params, average, 0.01), opt_state), None

    def run(key):
        params = kind.network.init(key, jnp.zeros((1, *kind.shape)), jnp.ones(1))['params']
        keys = jax.random.split(jax.random.fold_in(key, 1), num_steps)
        return jax.lax.scan(step, (params, params, optimizer.init(params)), keys)[0][1]

    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    program = jax.jit(jax.vmap(run)).lower(keys).compile()
    start = time.process_time()
    averages = jax.block_until_ready(program(keys))
    seconds = time.process_time() - start
    return [jax.tree.map(lambda a, i=i: a[i], averages) for i in range(seeds)], seconds


@functools.partial(jax.jit, static_argnums=0)
def divergence(kind, params) -> jax.Array:
    """The Fisher divergence to the exact score, from 65,536 draws that are the same for all."""
    key_data, key_noise = jax.random.split(jax.random.key(10**6))
    x0 = DATA.sample(key_data, 2**16)
    t = T_MIN + (SDE.T - T_MIN) * (jnp.arange(len(x0)) + 0.5) / len(x0)
    x = SDE.perturb(x0, t, jax.random.normal(key_noise, x0.shape))
    error = kind.process(params).score(x, t) - DATA.process(SDE).score(x, t)
    return 0.5 * jnp.mean(SDE.sigma(t) ** 2 * jnp.sum(error**2, axis=1))


def plane(num_steps: int, seeds: int) -> None:
    """Prints the table of Fisher divergences."""
    print(f'{num_steps} steps of {BATCH}, {seeds} seeds; {machine.name()}\n')
    print('| network | objective | 1000 x Fisher divergence | less its anchor, paired | CPU s |')
    print('| --- | --- | --- | --- | --- |')
    for kind in (Energy(), Score()):
        found = {}
        for name in losses.OBJECTIVES:
            if name == 'fd_denoising' and isinstance(kind, Score):
                continue
            averages, seconds = train(kind, name, num_steps, seeds)
            found[name] = 1e3 * np.array([divergence(kind, one) for one in averages])
            anchor = ANCHORS.get(name)
            less = with_error(found[name] - found[anchor]) if anchor else ''
            cells = kind.name, f'`{name}`', with_error(found[name]), less, f'{seconds:.0f}'
            print(f'| {" | ".join(cells)} |', flush=True)


def with_error(values) -> str:
    """A mean, and its standard error over seeds."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f'{values.mean():.2f} ± {error:.2f}'


# The length of a difference

STEPS = 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0


def row(make_process, params, name, x0, t_min) -> list[str]:
    """The error of the gradient at every length of a difference, at the same draws."""

    def gradient(name, **options):
        objective = losses.OBJECTIVES[name]('sigma2', 'stratified', t_min, **options)

        def loss(params):
            return objective(make_process(params), jax.random.key(5), x0).mean()

        return jax.flatten_util.ravel_pytree(jax.grad(loss)(params))[0]

    by_steps = jax.jit(lambda fd_step: gradient(name, fd_step=fd_step))
    exact = jax.jit(lambda: gradient(ANCHORS[name]))()
    errors = [jnp.linalg.norm(by_steps(h) - exact) for h in STEPS]
    return [f'{error / jnp.linalg.norm(exact):.1e}' for error in errors]


def step(workdir: pathlib.Path | None) -> None:
    """Prints the table of errors against lengths."""
    print(f'{machine.name()}\n')
    print('| network | dimensions | objective | ' + ' | '.join(f'{h:g}' for h in STEPS) + ' |')
    print('| --- ' * (3 + len(STEPS)) + '|')
    for kind in (Energy(), Score()):
        (params,), _ = train(kind, 'denoising', 1000, 1)
        x0 = DATA.sample(jax.random.key(3), 512)
        for name in ('fd_sliced', 'fd_sliced_vr'):
            cells = row(kind.process, params, name, x0, T_MIN)
            print('|', ' | '.join([kind.name, '2', f'`{name}`', *cells]), '|', flush=True)
    if workdir:
        of_demo(workdir)


def of_demo(workdir: pathlib.Path) -> None:
    """The rows of the demo's network, as it is, as an energy, and in bfloat16."""
    mesh = sharding.create_mesh()
    config = recorded.read(workdir / 'config.json')
    experiment = kinds.create(config, mesh)
    params = run_files.restore(config, workdir, experiment, mesh).evaluated
    pixels = experiment.data('test').gather(np.arange(16))['image']
    x0 = experiment.model.format.to_float(pixels)
    for title, changes, names in (
        ("the demo's", {}, ['fd_sliced', 'fd_sliced_vr']),
        ("the demo's in bfloat16", {'dtype': 'bfloat16'}, ['fd_sliced_vr']),
        ("the demo's as an energy", {'energy': 'norm'}, ['fd_sliced']),
    ):
        config.model.update(changes)
        model = kinds.create(config).model
        for name in names:
            cells = row(model.process, params, name, x0, T_MIN)
            print('|', ' | '.join([title, '784', f'`{name}`', *cells]), '|', flush=True)
        config.model.update({key: 'float32' if key == 'dtype' else 'none' for key in changes})


# The noise of gradients

WAYS = [
    ('sigma2', 'stratified'),
    ('likelihood', 'stratified'),
    ('likelihood', 'importance'),
    ('edm', 'log_normal'),
]


def scatter(name: str, weighting: str, sampler: str, **options) -> float:
    """The standard deviation of the derivative in c over 2^18 draws."""
    objective = losses.OBJECTIVES[name](weighting, sampler, T_MIN, **options)
    key, x0 = jax.random.key(1), DATA.sample(jax.random.key(0), 2**18)
    process = DATA.process(SDE)

    def loss(c):
        return objective(process.with_score(lambda x, t: c * process.score(x, t)), key, x0)

    one = jnp.ones(())
    return float(np.std(jax.jit(lambda: jax.jvp(loss, (one,), (one,))[1])()))


def noise() -> None:
    """Prints the table of the noise of gradients."""
    print('| objective | ' + ' | '.join(f'`{a}`, `{b}`' for a, b in WAYS) + ' |')
    print('| --- ' * (1 + len(WAYS)) + '|')
    rows = [('exact', {}), ('sliced', {}), ('sliced_vr', {})]
    rows += [('sliced', {'projection': 'gaussian'}), ('sliced', {'num_projections': 8})]
    units = [scatter('denoising', *way) for way in WAYS]
    for name, options in rows:
        title = ', '.join([f'`{name}`', *map(str, options.values())])
        ratios = [
            scatter(name, *way, **options) / unit for way, unit in zip(WAYS, units, strict=True)
        ]
        cells = [f'{ratio:.1f}' for ratio in ratios]
        print(f'| {title} | {" | ".join(cells)} |', flush=True)


def main() -> None:
    """Prints one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('table', choices=['plane', 'step', 'noise'])
    parser.add_argument('--steps', type=int, default=2000)
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--workdir', type=pathlib.Path)
    args = parser.parse_args()
    if args.table == 'plane':
        plane(args.steps, args.seeds)
    elif args.table == 'step':
        step(args.workdir)
    else:
        noise()


if __name__ == '__main__':
    main()

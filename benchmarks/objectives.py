"""Time and memory of the gradient of every objective, and of sliced score matching by reverse mode.

    python -m benchmarks.objectives [--only MLP ...] [--repeats 10] > table.md

Programs of one network take turns, in one process and on one device: the value of the objective at
random states, and its gradient in the parameters. Temporaries are what XLA says that a program
holds besides its arguments and results. Five minutes on two cores.
"""

import argparse
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

import directional
import implicit
from benchmarks import machine, networks
from configs import base
from configs.vp import mnist_ddpmpp
from experiments import kinds
from parameterization import Process
from sde_lib import expand
from shapes import PerImage, State

STEP = 0.1  # of differences, in parts of sigma


class Draw(NamedTuple):
    """What an objective is of: states and times, a direction of each, and the noise in it."""

    x: State
    t: PerImage
    direction: State
    noise: State


# Anchors: sliced score matching as a library with gradients alone has to compute it.


def sliced_reverse(process: Process, draw: Draw) -> PerImage:
    """u . grad(u . grad log p) + (u . grad log p)^2 / 2, each gradient by reverse mode."""

    def slope(x):
        return implicit.inner(process.score(x, draw.t), draw.direction)

    curvature = implicit.inner(jax.grad(lambda x: slope(x).sum())(draw.x), draw.direction)
    return curvature + 0.5 * slope(draw.x) ** 2


def sliced_vr_reverse(process: Process, draw: Draw) -> PerImage:
    """As `sliced_reverse`, with |score|^2 / 2."""
    score, pull = jax.vjp(lambda x: process.score(x, draw.t), draw.x)
    (product,) = pull(draw.direction)
    return implicit.inner(product, draw.direction) + 0.5 * implicit.inner(score, score)


def one_by_one(f, x, v, orders, step):
    """Differences as directional.finite takes them, without a batch of all points."""
    offsets = directional.symmetric_offsets(max(orders) + 1)
    values = [f(x + expand(offset * step, x) * v) for offset in offsets.tolist()]
    found = []
    for order in orders:
        weights = directional.difference_weights(offsets, order).tolist()
        total = sum(w * value for w, value in zip(weights, values, strict=True) if w)
        found.append(total / expand(step**order, total))
    return found


def denoising(process: Process, draw: Draw) -> PerImage:
    """|sigma score + noise|^2."""
    sigma = expand(process.sde.sigma(draw.t), draw.x)
    residual = sigma * process.score(draw.x, draw.t) + draw.noise
    return implicit.inner(residual, residual)


def fd_denoising(process: Process, draw: Draw) -> PerImage:
    """(u . (sigma score + noise))^2, by a difference of the log density."""
    sigma = process.sde.sigma(draw.t)
    (slope,) = directional.finite(
        lambda x: process.log_density(x, draw.t), draw.x, draw.direction, [1], STEP * sigma
    )
    return (sigma * slope + implicit.inner(draw.direction, draw.noise)) ** 2


def by(estimate: Callable, derivatives: Callable | None = None, of_field: bool = False) -> Callable:
    """An objective of implicit.py, by forward mode or by these differences; or of the score of an
    energy, as if no density were known."""

    def objective(process, draw):
        if of_field:
            process = process.with_score(process.score)
        method = directional.forward
        if derivatives:
            method = functools.partial(derivatives, step=STEP * process.sde.sigma(draw.t))
        return estimate(process, draw.x, draw.t, draw.direction, method)

    return objective


FINITE = directional.finite
OF_ENERGIES = {
    'the log density alone': lambda process, draw: process.log_density(draw.x, draw.t),
    '`denoising`': denoising,
    '`fd_denoising`': fd_denoising,
    'sliced, reverse over reverse': sliced_reverse,
    'sliced, forward over reverse': by(implicit.sliced, of_field=True),
    '`sliced`: forward over forward': by(implicit.sliced),
    '`fd_sliced`': by(implicit.sliced, FINITE),
    '`fd_sliced`, one by one': by(implicit.sliced, one_by_one),
    '`sliced_vr`: forward over reverse': by(implicit.sliced_vr),
    '`fd_sliced_vr`': by(implicit.sliced_vr, FINITE),
}
OF_FIELDS = {
    'the score alone': lambda process, draw: implicit.inner(
        process.score(draw.x, draw.t), draw.direction
    ),
    '`denoising`': denoising,
    'sliced, reverse': sliced_reverse,
    'sliced_vr, reverse': sliced_vr_reverse,
    '`sliced`: forward': by(implicit.sliced),
    '`sliced_vr`: forward': by(implicit.sliced_vr),
    '`fd_sliced`': by(implicit.sliced, FINITE),
    '`fd_sliced_vr`': by(implicit.sliced_vr, FINITE),
    '`fd_sliced_vr`, one by one': by(implicit.sliced_vr, one_by_one),
}
# What others are compared with.
UNITS = ('`fd_sliced`', '`fd_sliced_vr`')


def of_model(section, **changes):
    """The demo's config with another network."""
    config = mnist_ddpmpp.get_config()
    config.model = section
    config.model.update(changes)
    return config


def demo_energy():
    """The demo's network as an energy."""
    config = mnist_ddpmpp.get_config()
    config.model.energy = 'norm'
    return config


CASES = {
    'MLP of 3 x 512, an energy, batch 128': (
        lambda: of_model(base.energy_mlp(), width=512, num_layers=3),
        128,
        OF_ENERGIES,
    ),
    'MLP of 5 x 1000, an energy, batch 128': (
        lambda: of_model(base.energy_mlp(), width=1000, num_layers=5),
        128,
        OF_ENERGIES,
    ),
    'CNN of 32, 64, 64, an energy, batch 64': (
        lambda: of_model(base.energy_conv(), nf=32, ch_mult=(1, 2, 2)),
        64,
        OF_ENERGIES,
    ),
    'DDPM++ of the demo, a score, batch 32': (mnist_ddpmpp.get_config, 32, OF_FIELDS),
    'DDPM++ of the demo, an energy, batch 32': (demo_energy, 32, OF_ENERGIES),
}


def measure(case: tuple, repeats: int) -> list[list[str]]:
    """The cells of the rows of a network: name, times, memory, and compilation."""
    make, batch, objectives = case
    model = kinds.create(make()).model
    params = networks.noisy(jax.jit(model.init_params)(jax.random.key(0)))
    key_x, key_u, key_noise = jax.random.split(jax.random.key(1), 3)
    shape = batch, *model.image_shape
    draw = Draw(
        jax.random.normal(key_x, shape),
        jnp.linspace(0.1, 1, batch),
        directional.rademacher(key_u, batch, model.image_shape),
        jax.random.normal(key_noise, shape),
    )

    def gradient(objective):
        def loss(params, draw):
            return objective(model.process(params), draw).mean()

        return networks.compiled(jax.value_and_grad(loss), params, draw)

    found = {name: gradient(objective) for name, objective in objectives.items()}
    seconds = networks.medians({name: program.run for name, program in found.items()}, repeats)
    units = [(seconds[name], found[name].temporaries) for name in UNITS]
    return [
        [
            name,
            f'{1e3 * seconds[name]:.1f}',
            *(f'{seconds[name] / unit:.2f}' for unit, _ in units),
            f'{program.temporaries / 2**20:.1f}',
            *(f'{program.temporaries / unit:.2f}' for _, unit in units),
            f'{program.compile_seconds:.1f}',
        ]
        for name, program in found.items()
    ]


HEADER = (
    '| objective | ms | over `fd_sliced` | over `fd_sliced_vr` | temporaries, MiB '
    '| over `fd_sliced` | over `fd_sliced_vr` | compilation, s |\n' + '| --- ' * 8 + '|'
)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='*', default=[''], help='parts of the names of networks')
    parser.add_argument('--repeats', type=int, default=10)
    args = parser.parse_args()
    print(f'Medians of {args.repeats}, by turns; {machine.name()}')
    for name, case in CASES.items():
        if any(part in name for part in args.only):
            print(f'\n### {name}\n\n{HEADER}')
            for cells in measure(case, args.repeats):
                print(f'| {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()

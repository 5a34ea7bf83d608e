"""How the prior of a latent score model is best trained: weightings, algorithms and mixed scores
(Vahdat et al. 2021, arXiv:2106.05931), for the bound and for samples.

    python -m benchmarks.latent_training --autoencoder runs/lsgm_autoencoder \
        --classifier runs/classifier --keep runs/arms [--steps 2000] [--seeds 1 2]

All arms are the joint stage of the config of the autoencoder's run, begin with its autoencoder and
another prior at random, and take as many steps. What is measured is the
same for all, whatever they were trained by:

* the bound of the first test digits by sampling, with the weighting 'likelihood', by as many
  stratified times of importance sampling a digit. Keys are those of the digits, so that arms differ
  digit by digit: columns are the mean over seeds, that of the difference from the first arm with
  its standard error over digits, and this difference of each seed.
* the Fréchet distance of the classifier's features between samples and all test digits, of as many
  samples, by 10 evaluations of DPM-Solver++ 2M from the same noise; of each seed.

Arms that are in the directory `--keep` are not trained again.
"""

import argparse
import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from tqdm import tqdm

from benchmarks import latent_sampling, machine
from datasets import loading
from devices import sharding
from experiments import kinds, latent_measures
from experiments.latent_model import AUTOENCODER
from storage import resumable
from training import TrainState

DIGITS = 2000  # of which bounds are, in batches of
BATCH = 500
DRAWS = 64
SAMPLES = 1000
AT_ONCE = 50  # steps of a program


class Arm(NamedTuple):
    """Fields of config.training and of config.model that differ."""

    weighting: str
    algorithm: int
    is_mixed: bool
    importance: bool = True
    control_variate: bool = False


ARMS = [
    Arm('likelihood', 1, is_mixed=True),
    Arm('reweighted', 2, is_mixed=True),
    Arm('reweighted', 3, is_mixed=True),
    Arm('sigma2', 2, is_mixed=True),
    Arm('sigma2', 3, is_mixed=True),
    Arm('likelihood', 1, is_mixed=True, importance=False),
    Arm('likelihood', 1, is_mixed=True, control_variate=True),
    Arm('sigma2', 3, is_mixed=True, control_variate=True),
    Arm('likelihood', 1, is_mixed=False),
    Arm('reweighted', 3, is_mixed=False),
    Arm('sigma2', 3, is_mixed=False),
]


def config_of(arm: Arm, of_autoencoder, seed: int, steps: int):
    """The joint stage of a config, with the fields of an arm."""
    config = of_autoencoder.copy_and_resolve_references()
    config.seed = seed
    if not arm.is_mixed:
        config.model.mixing_logit = None
    training = config.training
    training.stage = 'joint'
    training.t_min = config.eval.t_min
    training.num_steps = steps
    training.kl_warmup = 0
    training.prior_weighting = arm.weighting
    training.shared_times = arm.algorithm != 2
    training.importance = arm.importance
    training.control_variate = arm.control_variate
    return config


def begin(experiment, autoencoder: latent_sampling.Run, seed: int) -> TrainState:
    """The state before the first step: the averaged autoencoder of a run, and a prior at random."""
    state = experiment.init(jax.random.key(seed))
    params = {**state.params, AUTOENCODER: autoencoder.params[AUTOENCODER]}
    return state._replace(params=params, averages=dict.fromkeys(state.averages, params))


def train(experiment, state: TrainState, pixels, config) -> TrainState:
    """The state after the steps of the config, on digits that are drawn at random."""
    size, key = config.training.batch_size, jax.random.key(config.seed)

    @jax.jit
    def several(state):
        def step(state, _):
            of_step = jax.random.fold_in(key, state.step)
            chosen = jax.random.randint(of_step, (size,), 0, len(pixels))
            batch = {'image': pixels[chosen], 'label': jnp.zeros(size, jnp.int32)}
            return experiment.step(state, batch)[0], None

        return lax.scan(step, state, length=AT_ONCE)[0]

    for _ in range(config.training.num_steps // AT_ONCE):
        state = several(state)
    return state


def trained(arm: Arm, args, autoencoder, pixels, distance, mesh, seed: int) -> resumable.Arrays:
    """What is measured of an arm after its training."""
    config = config_of(arm, autoencoder.config, seed, args.steps)
    experiment = kinds.create(config)
    state = begin(experiment, autoencoder, seed)
    params = train(experiment, state, pixels, config).evaluated
    return measure(latent_sampling.Run(config, experiment, params), distance, mesh)


def measure(run: latent_sampling.Run, distance, mesh) -> resumable.Arrays:
    """The bound of each digit, and the distance of samples."""
    config, model, test = run.config, run.experiment.model, run.experiment.data('test')
    config.seed = 0  # What is drawn to measure by is the same for all.
    config.eval.cross_entropy_draws = DRAWS
    config.eval.batch_size = config.sampling.batch_size = BATCH
    config.sampling.steps = 9  # One evaluation more denoises.
    program, bounds = latent_measures.sampled_program(config, model, mesh), []
    for first in range(0, DIGITS, BATCH):
        index = np.arange(first, first + BATCH)
        batch = {**test.gather(index), 'index': index}
        found = program.run(run.params, None, {name: batch[name] for name in program.batch})
        bounds.append(sum(found.values()))
    draw, key = jax.jit(latent_measures.drawing(config, model, 'dpmpp_2m').draw), jax.random.key(0)
    images = [
        draw(run.params, key, np.arange(first, first + BATCH), None)['pixels']
        for first in range(0, SAMPLES, BATCH)
    ]
    found = distance(loading.from_arrays(np.concatenate(images)))
    return {'bound': np.concatenate(bounds), 'fd': np.array(found)}


def row(arm: Arm, found: list[resumable.Arrays], first: list[resumable.Arrays]) -> str:
    """A line of the table, of the arrays of all seeds."""
    bounds, references = (np.stack([seed['bound'] for seed in of]) for of in (found, first))
    less = bounds - references
    error = less.mean(axis=0).std(ddof=1) / DIGITS**0.5
    cells = [
        f'`{arm.weighting}`'
        + ('' if arm.importance else ', uniform times')
        + (', control variate' if arm.control_variate else ''),
        arm.algorithm,
        'yes' if arm.is_mixed else 'no',
        f'{bounds.mean():.2f}',
        f'{less.mean():+.2f} ± {error:.2f}',
        ', '.join(f'{value:+.2f}' for value in less.mean(axis=1)),
        ', '.join(f'{float(seed["fd"]):.3f}' for seed in found),
    ]
    return '| ' + ' | '.join(map(str, cells)) + ' |'


def main() -> None:
    """Trains what is not there, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ('autoencoder', 'classifier', 'keep'):
        parser.add_argument(f'--{name}', type=pathlib.Path, required=True)
    parser.add_argument('--steps', type=int, default=2000)
    parser.add_argument('--seeds', type=int, nargs='+', default=[1, 2])
    args = parser.parse_args()
    mesh = sharding.create_mesh()
    autoencoder = latent_sampling.load(args.autoencoder, mesh)
    train_images, test_images = (autoencoder.experiment.data(split) for split in ('train', 'test'))
    pixels = jnp.asarray(train_images.gather(np.arange(len(train_images)))['image'])
    distance = latent_sampling.judge(args.classifier, test_images, mesh)
    found = {
        (seed, arm): resumable.keep(
            args.keep / f'seed_{seed}',
            i,
            functools.partial(trained, arm, args, autoencoder, pixels, distance, mesh, seed),
        )
        for seed in args.seeds
        for i, arm in enumerate(tqdm(ARMS, unit='arm'))
    }
    print(
        f'{args.steps:,} steps, seeds {args.seeds}, bounds of {DIGITS:,} test digits with {DRAWS} '
        f'draws each, distances of {SAMPLES:,} samples; {machine.name()}\n'
    )
    print('| weighting | algorithm | mixed | nats | less the first | of each seed | fd of each |')
    print('| --- ' * 7 + '|')
    first = [found[seed, ARMS[0]] for seed in args.seeds]
    for arm in ARMS:
        print(row(arm, [found[seed, arm] for seed in args.seeds], first))


if __name__ == '__main__':
    main()

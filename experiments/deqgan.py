"""The experiment of a differential equation: networks that solve it, each from a seed of its own.

The examples are the points of a grid, and a batch are some or all of them. All networks take a step
at once, with noise of their own; what is measured is the error of each against the truth, and the
best, the median and the worst of them are told.
"""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

import equations
from choices import InputError
from devices import sharding
from equations import objectives
from equations.objectives import Adversarial
from equations.training import Rate, State, Training, of_each
from evaluation.batchwise import Found, Measure, OverData
from evaluation.quantities import LOWER, Quantity
from experiments.experiment import Batch, Drawing, Program
from models.tanh_mlp import TanhMLP
from reports import plots
from shapes import OneKey, PerImage, Scalar
from training import EMA, Params, TrainState

NUMBERS = {'float32': jnp.float32, 'float64': jnp.float64}
SOLUTION, DISCRIMINATOR = 'solution', 'discriminator'
PICTURE = 'solution.png'


class Progress(NamedTuple):
    """What a step reports: medians over networks, how many of them monitoring has found to scatter,
    and the steps in a row, up to this one, that changed none."""

    loss: Scalar
    residual: Scalar
    grad_norm: Scalar
    alarmed: Int[Array, '']
    skipped: Int[Array, '']


@dataclasses.dataclass(frozen=True)
class Points:
    """Points of a domain, in numbers of some type."""

    points: Float[np.ndarray, 'num dim']
    dtype: str

    def __len__(self) -> int:
        return len(self.points)

    def gather(self, indices: Int[np.ndarray, 'batch']) -> dict[str, np.ndarray]:
        """Those with these indices."""
        return {'point': self.points[indices].astype(self.dtype)}


class DifferentialEquation:
    """Networks that solve a problem; see experiment.py for what the methods are."""

    def __init__(self, config: ConfigDict, mesh: Mesh | None):
        self._config, self._mesh = config, mesh
        self._num = config.training.num_networks
        self.training = create_training(config)

    def data(self, split: str) -> Points:
        """The grid; of the test split the points where errors are measured, in an order whose
        beginning is from all of the domain.
        """
        problem, shape = self.training.problem, self.training.shape
        grid = problem.grid(shape) if split == 'train' else _spread(problem.finer_grid(shape))
        return Points(grid, self._config.training.dtype)

    def batch_shapes(self, size: int) -> Batch:
        """Points."""
        shape = size, self.training.problem.dim
        return {'point': jax.ShapeDtypeStruct(shape, NUMBERS[self._config.training.dtype])}

    def init(self, key: OneKey) -> TrainState:
        """The state before the first step: networks, and their discriminators if they have any, are
        the parameters."""
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(self._num))
        zero = jnp.zeros((), jnp.int32)
        states = jax.vmap(self.training.init)(keys)
        return _packed(zero, jnp.copy(zero), states)

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Progress]:
        """One step of all networks."""
        state = sharding.whole(self._mesh, state)
        key = jax.random.fold_in(jax.random.key(self._config.seed), state.step)
        points = batch['point']

        def of_one(given):
            number, one = given
            return self.training.step(jax.random.fold_in(key, number), one, points, state.step)

        given = jnp.arange(self._num), _unpacked(state)
        after, report = of_each(of_one, given, len(points))
        skipped = jnp.where(report.updated.any(), 0, state.skipped + 1)
        progress = Progress(
            *map(jnp.nanmedian, (report.loss, report.residual, report.grad_norm)),
            after.alarmed.sum(),
            skipped,
        )
        return _packed(state.step + 1, skipped, after), progress

    def loss(self, params: Params, key: OneKey, batch: Batch, train: bool) -> PerImage:
        """The mean squared residual at each point, the median of all networks. As in training it is
        what a network is trained by, and its discriminator, without noise: the mean of networks.
        """
        points = batch['point']

        def of_one(given):
            residual = self.training.residual(given[SOLUTION], points)
            if train and DISCRIMINATOR in given:
                return self.training.objective.losses(given[DISCRIMINATOR], residual)
            function = self.training.objective.function if train else jnp.square
            return function(residual).mean(axis=1)

        found = of_each(of_one, params, len(points))
        return found.mean(axis=0) if train else jnp.nanmedian(found, axis=0)

    def drawing(self) -> Drawing | None:
        """There are no images."""
        return None

    def programs(self) -> list[Program]:
        """None are large."""
        return []

    def measures(self, workdir: pathlib.Path) -> list[Measure]:
        """Errors of the networks against the truth, and a picture of the median one."""

        def solutions(params, key, batch):
            def of_one(given):
                return self.training.solution(given[SOLUTION])(batch['point'])

            # Points first, as all arrays of examples.
            found = of_each(of_one, params, len(batch['point']))
            return {'solution': jnp.moveaxis(found, 0, 1)}

        data, problem = self.data('test'), self.training.problem
        over_points = OverData(
            name='solution',
            function=sharding.jit(self._mesh, solutions),
            data=data,
            batch_size=self._config.eval.batch_size,
            seed=self._config.seed,
            mesh=self._mesh,
        )

        def measure(checkpoint):
            found = over_points(checkpoint)['solution'].astype(np.float64)
            truth = problem.truth(data.points)
            errors = ((found - truth[:, None]) ** 2).mean(axis=(0, 2))
            order = np.argsort(errors)  # What is not finite comes last.
            median = found[:, order[(len(order) - 1) // 2]]
            checkpoint.directory.mkdir(parents=True, exist_ok=True)
            picture = plots.solution(data.points, median, truth, problem.names)
            plots.save(picture, checkpoint.directory / PICTURE)
            return Found(_quantities(errors))

        return [measure]


def _quantities(errors: Float[np.ndarray, 'networks']) -> list[Quantity]:
    """The best, the median and the worst error; one that is not finite is worse than any."""
    errors = np.where(np.isfinite(errors), errors, np.inf)
    found = {'best': errors.min(), 'median': np.median(errors), 'worst': errors.max()}
    return [
        Quantity('mean_squared_error', float(value), better=LOWER, of=of)
        for of, value in found.items()
    ]


def _spread(points: Float[np.ndarray, 'num dim']) -> Float[np.ndarray, 'num dim']:
    """In an order in which the first points are from all of the domain."""
    return points[np.random.default_rng(0).permutation(len(points))]


# States


def _packed(step: Array, skipped: Array, states: State) -> TrainState:
    """The networks are the parameters; their last iterate is what is evaluated."""
    params, objective = {SOLUTION: states.params}, states.objective
    if isinstance(objective, objectives.Adversary):
        params[DISCRIMINATOR] = objective.variables
        objective = objective._replace(variables=())
    rest = states._replace(params=(), objective=objective)
    return TrainState(step, skipped, params, rest, {EMA: jax.tree.map(jnp.copy, params)})


def _unpacked(state: TrainState) -> State:
    objective = state.opt_state.objective
    if DISCRIMINATOR in state.params:
        objective = objective._replace(variables=state.params[DISCRIMINATOR])
    return state.opt_state._replace(params=state.params[SOLUTION], objective=objective)


# From a config


def create_training(config: ConfigDict) -> Training:
    """How the networks of a config are trained.

    Raises InputError for a grid that the problem has no use for, and for numbers of 64 bits where
    JAX has none.
    """
    problem = equations.PROBLEMS[config.equation.name]
    shape = tuple(config.equation.points)
    if len(shape) != problem.dim:
        raise InputError(
            f'equation.points: {shape}; one number for each axis of '
            f'{config.equation.name!r} needed: {", ".join(problem.names)}'
        )
    optim, fields, dtype = config.optim, config.training, config.training.dtype
    if dtype == 'float64' and not jax.config.jax_enable_x64:
        raise InputError('training.dtype: float64, and JAX_ENABLE_X64 is not set: JAX has no such')
    solution = config.solution
    network = TanhMLP(solution.units, solution.blocks, problem.outputs, dtype=NUMBERS[dtype])
    return Training(
        problem,
        network,
        _objective(config, config.discriminator.lr),
        Rate(optim.lr, optim.beta1, optim.beta2, optim.decay, optim.decay_every),
        shape,
        fields.num_steps,
        fields.stop_alarmed,
    )


def with_rates(config: ConfigDict, lr: Any, lr_discriminator: Any) -> Training:
    """As the config says, but for both rates, which may be arrays."""
    made = create_training(config)
    rate = dataclasses.replace(made.rate, lr=lr)
    return dataclasses.replace(made, rate=rate, objective=_objective(config, lr_discriminator))


def _objective(config: ConfigDict, lr: Any) -> objectives.Objective:
    """That of config.training.loss, with this rate of the discriminator if there is one."""
    name, fields = config.training.loss, config.discriminator
    if name != objectives.GAN:
        return objectives.FIXED[name]
    decay = config.optim.decay, config.optim.decay_every
    rate = Rate(lr, fields.beta1, fields.beta2, *decay)
    dtype = NUMBERS[config.training.dtype]
    network = TanhMLP(fields.units, fields.blocks, spectral=True, dtype=dtype)
    return Adversarial(network, rate.optimizer(), config.training.instance_noise)

"""The programs of an experiment on a mesh: what is compiled, and how its arrays lie."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

import training
from devices import processes, sharding
from evaluation.batchwise import Draws
from experiments.experiment import Batch, Drawing, Experiment
from shapes import OneKey, Scalar
from training import Metrics, Params, TrainState


# Of a large network it takes seconds to trace, and several programs ask for it.
@functools.lru_cache(maxsize=4)
def abstract_state(experiment: Experiment, mesh: Mesh | AbstractMesh) -> TrainState:
    """The shapes of a state, and how it lies on the mesh."""
    key = jax.eval_shape(jax.random.key, 0)
    with processes.saying('tracing the network'):
        return sharding.laid_out(mesh, jax.eval_shape(experiment.init, key))


def first_state(experiment: Experiment, mesh: Mesh, seed: int) -> TrainState:
    """The state before the first step of the run with this seed."""
    layout = jax.tree.map(lambda array: array.sharding, abstract_state(experiment, mesh))
    return jax.jit(experiment.init, out_shardings=layout)(jax.random.key(seed))


def training_steps(
    experiment: Experiment, mesh: Mesh, donate: bool = True
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Several steps as one program, on batches with a leading axis of steps; the state before is
    gone after it, unless not `donate`.
    """
    abstract = abstract_state(experiment, mesh)
    return jax.jit(
        functools.partial(training.run_steps, experiment.step),
        out_shardings=(sharding.by_size(mesh, abstract), sharding.copied(mesh)),
        donate_argnums=0 if donate else (),
    )


def mean_loss(experiment: Experiment, mesh: Mesh) -> Callable[[Params, OneKey, Batch], Scalar]:
    """The mean loss of a batch of test data."""

    def loss(params, key, batch):
        return experiment.loss(params, key, batch, train=False).mean()

    return sharding.jit(mesh, loss, out_shardings=sharding.copied(mesh))


def drawing(of: Drawing, mesh: Mesh) -> Callable[..., Any]:
    """A batch of images."""
    return sharding.jit(mesh, of.draw, out_shardings=sharding.by_batch(mesh))


def draws(of: Drawing, mesh: Mesh, num: int | None = None) -> Draws:
    """The first `num` images, or as many as the drawing says, in batches."""
    return Draws(
        name=of.name,
        run=drawing(of, mesh),
        num=num or of.num,
        batch_size=of.batch_size,
        seed=of.seed,
        mesh=mesh,
        given=of.given,
        remedy=of.remedy,
        steps=of.steps,
    )

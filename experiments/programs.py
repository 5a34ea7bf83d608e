"""The programs of an experiment on a mesh: what is compiled, and how its arrays lie."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

import training
from devices import sharding
from experiments.experiment import Batch, Drawing, Experiment
from shapes import OneKey, Scalar
from training import Metrics, Params, TrainState


# Of a large network it takes seconds to trace, and several programs ask for it.
@functools.lru_cache(maxsize=4)
def abstract_state(experiment: Experiment, mesh: Mesh | AbstractMesh) -> TrainState:
    """The shapes of a state, and how it lies on the mesh."""
    key = jax.eval_shape(jax.random.key, 0)
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


def drawing(drawing: Drawing, mesh: Mesh, size: int | None = None) -> Callable[..., Any]:
    """A batch of images, of `size` or of the drawing's; the devices need not divide `size`."""
    split = sharding.by_batch(mesh) if size is None else sharding.if_divided(mesh, size)
    return sharding.jit(mesh, drawing.draw, out_shardings=split)

"""How much of the gradient of a training is noise, and what follows for the SDE of SGD."""

import math

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from choices import InputError
from datasets import batching
from devices import compiling, processes, sharding
from evaluation.batchwise import Checkpoint, Found, Measure
from evaluation.quantities import Quantity
from experiments import reading
from experiments.experiment import Experiment
from gradient_noise import equilibrium
from gradient_noise.equilibrium import Statistics
from training import Params

# Batches are others than those of any training: seeds of runs are below.
SEED = 2**32
# The number of the key of their losses; those of training are its steps.
NOT_A_STEP = 2**32 - 1
# Of estimates, of which the mean has a standard error; each takes two batches at least.
NUM_BLOCKS = 10
CLOSE = math.sqrt(2)  # the factor C of the conditions


def create(config: ConfigDict, experiment: Experiment, mesh: Mesh) -> Measure:
    """R, G and N at the parameters of a checkpoint (gradient_noise/equilibrium.py), by
    config.eval.gradient_noise batches that are drawn with replacement: |x|^2, the squared norm of
    the mean gradient, and the variance of that of a batch, as training takes it. Of these the
    ratio N / G, the largest factor by which batch and rate can grow, and where the rate is constant
    the balance of lengths, which is 1 at rest if the loss does not depend on the length.

    Raises InputError if there are too few batches, or if what is kept of parameters is an average.
    """
    num, optim = config.eval.gradient_noise, config.optim
    if num < 2 * NUM_BLOCKS:
        raise InputError(f'eval.gradient_noise: {num}; 0, or at least {2 * NUM_BLOCKS} needed')
    if optim.ema_rate:
        raise InputError(
            f'optim.ema_rate: {optim.ema_rate}; eval.gradient_noise is of the parameters '
            'themselves, and evaluation sees their average: 0 needed'
        )
    size, substeps = reading.minibatch(config)

    def measure(checkpoint: Checkpoint) -> Found:
        found = _estimates(config, experiment, mesh, size, checkpoint.params)
        R, G, N = (values.mean() for values in found)
        quantities = [
            Quantity('squared_length', R),
            _mean('signal_of_gradient', found.G),
            _mean('noise_of_gradient', found.N),
            Quantity('noise_over_signal', N / G),
            Quantity('largest_scaling', equilibrium.largest_scaling(G, N, CLOSE)),
        ]
        if optim.weight_decay and not (optim.cosine_decay or optim.drop_at):
            drift = equilibrium.drift_of_length(R, optim.lr, optim.weight_decay, substeps)
            growth = equilibrium.growth_of_length(G, N, substeps)
            quantities.append(Quantity('balance_of_length', drift / growth))
        return Found(quantities)

    return measure


def _mean(name: str, values: np.ndarray) -> Quantity:
    error = values.std(ddof=1) / math.sqrt(len(values))
    return Quantity(name, float(values.mean()), float(error))


def _estimates(
    config: ConfigDict, experiment: Experiment, mesh: Mesh, size: int, params: Params
) -> Statistics:
    """Independent estimates, each from a block of the batches."""
    data, num = experiment.data('train'), config.eval.gradient_noise
    stream = batching.stream(data, size, config.seed + SEED, *processes.place(), replacement=True)

    def add(params, key, batch, total):
        gradient = jax.grad(lambda p: experiment.loss(p, key, batch, True).mean())(params)
        return optax.tree.add(total, gradient), equilibrium.squared_norm(gradient)

    program = compiling.told(
        'the noise of gradients', sharding.jit(mesh, add, out_shardings=sharding.copied(mesh))
    )
    found, key = [], jax.random.fold_in(jax.random.key(config.seed), NOT_A_STEP)
    for block in np.array_split(np.arange(num), NUM_BLOCKS):
        total, squares = optax.tree.zeros_like(params), []
        for k in block.tolist():
            batch = sharding.split(mesh, batching.batch_at(stream, k))
            total, square = program(params, jax.random.fold_in(key, k), batch, total)
            squares.append(float(square))
        of_mean = float(equilibrium.squared_norm(total)) / len(block) ** 2
        found.append(
            equilibrium.estimated(
                float(equilibrium.squared_norm(params)), np.mean(squares), of_mean, len(block)
            )
        )
    return Statistics(*np.array(found).T)

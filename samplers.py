"""From config.sampling to a sampler, by the name of a method."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Int, Key
from ml_collections import ConfigDict

import keys
import ode
import sampling
import sde_lib
from choices import InputError, choose
from experiment import ScoreModel, or_default, plain_fields
from sampling import Samples
from sde_lib import SDE
from solvers import correctors, grids, predictors
from solvers.grid_solver import GridSolver, predictor_corrector

Params = Any


def create_sampler(
    config: ConfigDict, model: ScoreModel, method: str
) -> Callable[[Params, Key[Array, ''], Int[Array, 'batch']], Samples]:
    """`sample(params, key, indices) -> Samples`, by a method of METHODS, as config.sampling says.

    Image i is the same in every batch, and, of a class-conditional network, of class i modulo the
    number of classes.
    """
    sample = create_method(config, model, method)

    def sample_one(params, image_key, label):
        drawn = sample(image_key[None], model.score_fn(params, label), model.image_shape)
        return jax.tree.map(lambda a: a[0], drawn)

    def sample_batch(params, key, indices):
        image_keys = keys.of_images(key, indices)
        if not model.num_classes:
            return sample(image_keys, model.score_fn(params), model.image_shape)
        return jax.vmap(sample_one, (None, 0, 0))(params, image_keys, indices % model.num_classes)

    return sample_batch


def create_method(config: ConfigDict, model: ScoreModel, method: str) -> Callable:
    """`sample(image_keys, score_fn, shape) -> Samples`, by a method of METHODS, for any score."""
    fields = config.sampling
    create = choose(METHODS, method, 'sampling.method')
    if fields.temperature < 0:
        raise InputError(f'sampling.temperature: {fields.temperature}; at least 0 needed')
    if model.num_classes and fields.batch_mean_norm:
        raise InputError(
            'sampling.batch_mean_norm: True is not for class-conditional networks, of which images '
            'are drawn one by one'
        )
    return functools.partial(
        create(fields, model.sde),
        sde=model.sde,
        denoise=fields.denoise,
        temperature=fields.temperature,
    )


def _on_grid(create_solver: Callable, fields: ConfigDict, sde: SDE) -> Callable:
    """A solver on the grid of these fields."""
    grid = choose(grids.TIME_GRIDS, fields.grid, 'sampling.grid')
    if fields.steps < 1:
        raise InputError(f'sampling.steps: {fields.steps}; at least 1 needed')
    solver = create_solver(fields)
    t_min = or_default(fields.t_min, _last_time(fields.grid, sde))
    return functools.partial(
        sampling.on_grid, times=grids.create(grid, sde, fields.steps, t_min), solver=solver
    )


def _last_time(grid: str, sde: SDE) -> float:
    """The SDE's t_min; a chain on the uniform grid steps from its lowest level to the data."""
    return 0.0 if grid == 'uniform' and isinstance(sde, sde_lib.Chain) else sde.t_min


def _predictor_corrector(fields: ConfigDict) -> GridSolver:
    predictor = choose(predictors.PREDICTORS, fields.predictor, 'sampling.predictor')
    corrector = choose(correctors.CORRECTORS, fields.corrector, 'sampling.corrector')
    if predictor is None and corrector is None:
        raise InputError("sampling: predictor and corrector are both 'none'; one is needed")
    if corrector and fields.corrector_steps < 1:
        raise InputError(f'sampling.corrector_steps: {fields.corrector_steps}; at least 1 needed')
    eta = or_default(fields.eta, 0.0 if fields.predictor == 'ddim' else 1.0)
    return predictor_corrector(
        predictor and functools.partial(predictor, eta=eta),
        corrector
        and functools.partial(corrector, snr=fields.snr, batch_mean=fields.batch_mean_norm),
        fields.corrector_steps,
        stochastic=corrector is not None or eta > 0,
    )


def _probability_flow(fields: ConfigDict, sde: SDE) -> Callable:
    choose(ode.SOLVERS, fields.solver, 'sampling.solver')
    return functools.partial(
        sampling.probability_flow,
        t_min=or_default(fields.t_min, sde.t_min),
        **plain_fields(fields, only=['solver', 'rtol', 'atol']),
    )


METHODS = {'pc': functools.partial(_on_grid, _predictor_corrector), 'ode': _probability_flow}

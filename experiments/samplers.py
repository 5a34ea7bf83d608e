"""From config.sampling to a sampler, by the name of a method."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Int, Key
from ml_collections import ConfigDict

import keys
import sampling
import sde_lib
from choices import InputError, choose
from experiments.experiment import ScoreModel, check_time, or_default, plain_fields
from sampling import Samples
from sde_lib import SDE
from solvers import (
    adaptive,
    correctors,
    dpm_solver,
    grids,
    karras,
    ode,
    picard,
    predictors,
    reverse_sde,
    unipc,
)
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
    check_time('sampling.t_min', fields.t_min, model.sde, without_noise=True)
    for name, value in {'batch_mean_norm': True, 'per_image_steps': False}.items():
        if model.num_classes and fields[name] == value:
            raise InputError(
                f'sampling.{name}: {value} is not for class-conditional networks, of which images '
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
    solver, last_time = create_solver(fields, sde)
    t_min = or_default(fields.t_min, last_time)
    return functools.partial(sampling.on_grid, times=_times(fields, sde, t_min), solver=solver)


def _times(fields: ConfigDict, sde: SDE, t_min: float) -> Array:
    grid = choose(grids.TIME_GRIDS, fields.grid, 'sampling.grid')
    return grids.create(grid, sde, fields.steps, t_min)


def _last_time(grid: str, sde: SDE) -> float:
    """The SDE's t_min; a chain on the uniform grid steps from its lowest level to the data."""
    return 0.0 if grid == 'uniform' and isinstance(sde, sde_lib.Chain) else sde.t_min


def _predictor_corrector(fields: ConfigDict, sde: SDE) -> tuple[GridSolver, float]:
    """The solver, and its last time."""
    predictor = choose(predictors.PREDICTORS, fields.predictor, 'sampling.predictor')
    corrector = choose(correctors.CORRECTORS, fields.corrector, 'sampling.corrector')
    if predictor is None and corrector is None:
        raise InputError("sampling: predictor and corrector are both 'none'; one is needed")
    eta = _eta(fields)
    solver = predictor_corrector(
        predictor and functools.partial(predictor, eta=eta),
        corrector
        and functools.partial(corrector, snr=fields.snr, batch_mean=fields.batch_mean_norm),
        fields.corrector_steps,
        stochastic=corrector is not None or eta > 0,
    )
    return solver, _last_time(fields.grid, sde)


def _few_steps(
    create: Callable, names: list[str], fields: ConfigDict, sde: SDE
) -> tuple[GridSolver, float]:
    """A solver with these fields, and its last time; some of them evaluate the network there."""
    if fields.churn_max is not None and fields.churn_max < fields.churn_min:
        raise InputError(
            f'sampling.churn_max: {fields.churn_max} is below churn_min, {fields.churn_min}'
        )
    check_time('sampling.t_min', fields.t_min, sde)
    return create(**plain_fields(fields, only=names)), sde.t_min


def _eta(fields: ConfigDict) -> float:
    return or_default(fields.eta, 0.0 if fields.predictor == 'ddim' else 1.0)


def _picard(fields: ConfigDict, sde: SDE) -> Callable:
    predictor = choose(predictors.PREDICTORS, fields.predictor, 'sampling.predictor')
    if predictor is None or fields.corrector != 'none':
        raise InputError(
            f'sampling.method: picard takes a predictor and no corrector, not '
            f'{fields.predictor!r} and {fields.corrector!r}'
        )
    return functools.partial(
        picard.sample,
        times=_times(fields, sde, or_default(fields.t_min, _last_time(fields.grid, sde))),
        predictor=functools.partial(predictor, eta=_eta(fields)),
        stochastic=_eta(fields) > 0,
        window=fields.window,
        tolerance=fields.picard_tolerance,
    )


def _probability_flow(fields: ConfigDict, sde: SDE) -> Callable:
    per_image, on_grid = fields.per_image_steps, not fields.adaptive
    ode.check(fields.solver, per_image=per_image, on_grid=on_grid, field='sampling.solver')
    check_time('sampling.t_min', fields.t_min, sde)
    t_min = or_default(fields.t_min, sde.t_min)
    return functools.partial(
        sampling.probability_flow,
        t_min=t_min,
        per_image=per_image,
        times=_times(fields, sde, t_min) if on_grid else None,
        **plain_fields(fields, only=['solver', 'rtol', 'atol']),
    )


def _reverse_sde(fields: ConfigDict, sde: SDE) -> Callable:
    on_grid = not fields.adaptive
    reverse_sde.check(fields.sde_solver, on_grid=on_grid, field='sampling.sde_solver')
    check_time('sampling.t_min', fields.t_min, sde)
    t_min = or_default(fields.t_min, sde.t_min)
    return functools.partial(
        reverse_sde.sample,
        t_min=t_min,
        solver=fields.sde_solver,
        rtol=fields.sde_rtol,
        atol=fields.sde_atol,
        times=_times(fields, sde, t_min) if on_grid else None,
        eta=or_default(fields.eta, 1.0),
    )


def _adaptive_sde(fields: ConfigDict, sde: SDE) -> Callable:
    check_time('sampling.t_min', fields.t_min, sde)
    return functools.partial(
        adaptive.sample,
        t_min=or_default(fields.t_min, sde.t_min),
        rtol=fields.sde_rtol,
        atol=fields.sde_atol,
        eta=or_default(fields.eta, 1.0),
    )


def _few_step_method(create: Callable, names: list[str]) -> Callable:
    return functools.partial(_on_grid, functools.partial(_few_steps, create, names))


CHURN = ['churn', 'churn_min', 'churn_max', 'noise_scale']
METHODS = {
    'pc': functools.partial(_on_grid, _predictor_corrector),
    'picard': _picard,
    'ode': _probability_flow,
    'sde': _reverse_sde,
    'adaptive_sde': _adaptive_sde,
    **{name: _few_step_method(create, CHURN) for name, create in karras.SOLVERS.items()},
    **{name: _few_step_method(create, []) for name, create in dpm_solver.SOLVERS.items()},
    **{name: _few_step_method(create, []) for name, create in unipc.SOLVERS.items()},
    'dpmpp_2m_sde': _few_step_method(dpm_solver.dpmpp_2m_sde, ['eta']),
}

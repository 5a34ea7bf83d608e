"""From config.sampling to a sampler, and to how an experiment draws images by it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int
from ml_collections import ConfigDict

import keys
import sampling
from choices import InputError, fields_of
from configs import base
from configs.fields import exists, flat
from evaluation import left_out
from experiments.experiment import Drawing
from experiments.reading import ImageFormat, check_time
from experiments.score_model import ScoreModel
from sde_lib import SDE
from shapes import OneKey
from solvers.sampler import Sampler, Samples
from training import Params

# From fields of config.sampling to the arguments of samplers, where their names differ.
ARGUMENTS = {
    'grid': 'spacing',
    'per_image_steps': 'per_image',
    'batch_mean_norm': 'batch_mean',
    'picard_tolerance': 'tolerance',
    **{f'sde_{name}': name for name in ('solver', 'rtol', 'atol')},
}
# By method, the fields that decide how many steps its solver takes.
TOLERANCES = {
    'ode': ('rtol', 'atol'),
    **dict.fromkeys(('sde', 'adaptive_sde'), ('sde_rtol', 'sde_atol')),
}
# Methods that may end where there is no noise.
MAY_END_AT_DATA = ('pc', 'picard')


def create_sampler(config: ConfigDict, sde: SDE, method: str) -> Sampler:
    """A sampler of sampling.METHODS with the fields of config.sampling that it has; InputError if
    they do not go together.
    """
    fields = config.sampling
    check_time('sampling.t_min', fields.t_min, sde, without_noise=method in MAY_END_AT_DATA)
    own = own_fields(fields, method)
    named = {ARGUMENTS.get(field, field): f'sampling.{field}' for field in own}
    with fields_of('sampling', **named):
        sampler = sampling.create(
            method,
            t_min=fields.t_min,
            denoise=fields.denoise,
            temperature=fields.temperature,
            **{ARGUMENTS.get(field, field): value for field, value in own.items()},
        )
    check_grid(sampler, sde)
    return sampler


def check_grid(sampler: Sampler, sde: SDE) -> None:
    """Raises InputError for a grid that does not reach a time without noise: one whose times are
    equally far apart in the logarithm of the noise.
    """
    t_min, grid = sampler.t_min, sampler.grid
    if t_min is None or sde.sigma(jnp.float32(t_min)) > 0:
        return
    # NaN is above nothing.
    if not bool(jnp.all(jnp.diff(grid.times(sde, t_min)) < 0)):
        raise InputError(
            f'sampling.grid: {grid.spacing!r}, and sampling.t_min is {t_min}, where there is no '
            "noise; a later time, None, or the grid 'uniform' or 'karras' needed"
        )


def own_fields(fields: ConfigDict, method: str) -> dict[str, Any]:
    """The fields of config.sampling that exist for a method and not for all, and are not None."""
    declared = flat({'sampling': base.sampling()})
    values = {f'sampling.{name}': value for name, value in fields.items()}
    values['sampling.method'] = method
    of_methods = [name for name in fields if declared[f'sampling.{name}'].of]
    return {
        name: fields[name]
        for name in of_methods
        if fields[name] is not None and exists(f'sampling.{name}', declared, values)
    }


def check_one_by_one(config: ConfigDict, reason: str) -> None:
    """Raises InputError for fields that make images depend on each other."""
    for name, value in {'batch_mean_norm': True, 'per_image_steps': False}.items():
        if config.sampling[name] == value:
            raise InputError(f'sampling.{name}: {value} is not for {reason}')


def check_no_density(config: ConfigDict, method: str, of: str) -> None:
    """Raises InputError for a method that compares densities, of what knows scores alone."""
    if own_fields(config.sampling, method).get('corrector') == 'mala':
        raise InputError(
            f"sampling.corrector: 'mala' compares densities, and {of} has none; an energy needed "
            '(model.energy, or model.name = energy_mlp or energy_conv)'
        )


def create_drawing(
    config: ConfigDict, model: ScoreModel, method: str, draw: Callable | None = None
) -> Drawing:
    """Images by a method, as many and in such batches as config.sampling says.

    `draw` makes images of the model, as `draw_images` does, which None stands for. Image i is the
    same in every batch, and, of a class-conditional network, of class i modulo the number of
    classes.
    """
    if model.num_classes:
        reason = 'class-conditional networks, of which images are drawn one by one'
        check_one_by_one(config, reason)
    sampler = create_sampler(config, model.sde, method)
    if not model.is_energy:
        check_no_density(config, method, 'a score network')
    fields = config.sampling
    return Drawing(
        method,
        fields.num_samples,
        fields.batch_size,
        seed(config),
        functools.partial(draw or draw_images, model, sampler),
        fingerprint=repr((sampler, model.network.precision)),
        remedy=remedy(fields, method),
        steps=own_fields(fields, method).get('steps'),
    )


def seed(config: ConfigDict) -> int:
    """What images are drawn from: config.sampling.seed, or the run's."""
    own = config.sampling.seed
    return config.seed if own is None else own


def remedy(fields: ConfigDict, method: str) -> str:
    """Which fields of config.sampling are to be raised if the solver of a method stands still."""
    names = TOLERANCES.get(method, ())
    given = [f'sampling.{name} ({fields[name]:g})' for name in names]
    return f'raise {" or ".join(given)}' if given else ''


def draw_images(
    model: ScoreModel,
    sampler: Sampler,
    params: Params,
    key: OneKey,
    indices: Int[Array, 'batch'],
    given: None = None,
) -> dict[str, Array]:
    """The images with these indices, in 8 bits, their evaluations and what became of them, by the
    network with these parameters.
    """
    image_keys = keys.of_images(key, indices)

    def draw_one(image_key, label):
        drawn = sampler(image_key[None], model.process(params, label), model.image_shape)
        return jax.tree.map(lambda a: a[0], drawn)

    if model.num_classes:
        drawn = jax.vmap(draw_one)(image_keys, indices % model.num_classes)
    else:
        drawn = sampler(image_keys, model.process(params), model.image_shape)
    return in_8_bits(model.format, drawn)


def in_8_bits(image_format: ImageFormat, drawn: Samples) -> dict[str, Array]:
    """What becomes of samples in a program: see Drawing.draw."""
    found = {'pixels': image_format.to_uint8(drawn.x), 'nfe': drawn.nfe}
    # In 8 bits what is not a number would be black.
    return {**found, **left_out.arrays(drawn.ending, drawn.x)}

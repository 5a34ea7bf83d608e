"""From config.sampling to a sampler, and to how an experiment draws images by it."""

import functools
from typing import Any

import jax
from jaxtyping import Array, Int
from ml_collections import ConfigDict

import keys
import sampling
from choices import InputError, fields_of
from configs import base
from configs.fields import exists, flat
from experiments.experiment import Drawing
from experiments.reading import check_time
from experiments.score_model import ScoreModel
from sde_lib import SDE
from shapes import OneKey
from solvers.sampler import Sampler
from training import Params

# From fields of config.sampling to the arguments of samplers, where their names differ.
ARGUMENTS = {
    'grid': 'spacing',
    'per_image_steps': 'per_image',
    'batch_mean_norm': 'batch_mean',
    'picard_tolerance': 'tolerance',
    **{f'sde_{name}': name for name in ('solver', 'rtol', 'atol')},
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
        return sampling.create(
            method,
            t_min=fields.t_min,
            denoise=fields.denoise,
            temperature=fields.temperature,
            **{ARGUMENTS.get(field, field): value for field, value in own.items()},
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


def create_drawing(config: ConfigDict, model: ScoreModel, method: str) -> Drawing:
    """Images by a method, as many and in such batches as config.sampling says.

    Image i is the same in every batch, and, of a class-conditional network, of class i modulo the
    number of classes.
    """
    if model.num_classes:
        reason = 'class-conditional networks, of which images are drawn one by one'
        check_one_by_one(config, reason)
    sampler = create_sampler(config, model.sde, method)
    draw = functools.partial(draw_images, model, sampler)
    fields = config.sampling
    return Drawing(method, fields.num_samples, fields.batch_size, draw, fingerprint=repr(sampler))


def draw_images(
    model: ScoreModel,
    sampler: Sampler,
    params: Params,
    key: OneKey,
    indices: Int[Array, 'batch'],
    given: None = None,
) -> dict[str, Array]:
    """The images with these indices, in 8 bits, and their evaluations, by the network with these
    parameters.
    """
    image_keys = keys.of_images(key, indices)

    def draw_one(image_key, label):
        drawn = sampler(image_key[None], model.process(params, label), model.image_shape)
        return jax.tree.map(lambda a: a[0], drawn)

    if model.num_classes:
        drawn = jax.vmap(draw_one)(image_keys, indices % model.num_classes)
    else:
        drawn = sampler(image_keys, model.process(params), model.image_shape)
    return {'pixels': model.format.to_uint8(drawn.x), 'nfe': drawn.nfe}

"""Bits per dimension of test images, with what is known of their errors: from config.eval to a
function of a batch, and from all batches to the numbers that are reported."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

import bounds
import error_split
import images
import keys
import likelihood
import ode
from choices import InputError, choose
from experiment import Batch, Params, ScoreModel, or_default


class BitsPerDim(NamedTuple):
    """Of every image of a batch, in bits per dimension. None: not asked for.

    `by_draw` is that of every dequantisation and probe, `importance_weighted` the bound from all
    dequantisations, `variational` the variational bound. `round_trip_error` is the root mean square
    of what encoding and decoding changed, in grey levels (256ths of the range of the data).
    """

    by_draw: Float[Array, 'batch draws probes']
    nfe: Float[Array, 'batch']
    importance_weighted: Float[Array, 'batch'] | None
    variational: Float[Array, 'batch'] | None
    round_trip_error: Float[Array, 'batch'] | None


def create(
    config: ConfigDict, model: ScoreModel
) -> Callable[[Params, Key[Array, ''], Batch, Int[Array, 'batch']], BitsPerDim]:
    """`bits_per_dim(params, key, batch, index)`: what is drawn for an image depends on `key` and
    its index alone.

    Raises InputError for names that do not exist and for fields that do not go together.
    """
    fields = config.eval
    _check(fields, model)
    given = {'sde': model.sde, 't_min': or_default(fields.t_min, model.sde.t_min)}
    solve = {name: fields[name] for name in ('solver', 'rtol', 'atol')}
    solve['per_image'] = fields.per_image_steps
    log_prob = functools.partial(
        likelihood.log_prob,
        **given,
        **solve,
        divergence=fields.divergence,
        num_probes=fields.num_probes,
    )
    variational = functools.partial(bounds.variational, **given, num_draws=fields.variational_draws)
    in_bits = functools.partial(
        likelihood.bits_per_dim,
        dim=math.prod(model.image_shape),
        bin_width=images.bin_width(model.centered),
    )

    def one_dequantization(score_fn, image_keys, x):
        keys_probes, keys_bound = keys.split(image_keys, 2)
        found = log_prob(keys_probes, score_fn, x)
        bound = None
        if fields.variational_draws:
            bound = variational(keys_bound, score_fn, x).bound
        return found.by_probe, found.nfe, bound

    def of_images(params, image_keys, pixels, label):
        score_fn = model.score_fn(params, label)

        def dequantized(j):
            keys_noise, keys_rest = keys.split(keys.fold_in(image_keys, j), 2)
            return images.dequantize_each(keys_noise, pixels, model.centered), keys_rest

        def draw(j):
            x, keys_rest = dequantized(j)
            return one_dequantization(score_fn, keys_rest, x)

        log_probs, nfe, bound = jax.lax.map(draw, jnp.arange(fields.num_dequantizations))
        log_probs = jnp.moveaxis(log_probs, 0, 1)
        error = None
        if fields.round_trip:
            x, _ = dequantized(0)
            latent = likelihood.encode(score_fn, x, **given, **solve)
            decoded = likelihood.decode(score_fn, latent, **given, **solve)
            error = likelihood.round_trip_error(x, decoded) / images.bin_width(model.centered)
        weighted = bounds.importance_weighted(log_probs) if fields.importance_weighted else None
        return BitsPerDim(
            in_bits(log_probs),
            nfe.mean(axis=0),
            None if weighted is None else in_bits(weighted),
            None if bound is None else in_bits(-bound.mean(axis=0)),
            error,
        )

    def bits_per_dim(params, key, batch, index):
        image_keys = keys.of_images(key, index)
        if not model.num_classes:
            return of_images(params, image_keys, batch['image'], None)

        def of_one(image_key, pixels, label):
            found = of_images(params, image_key[None], pixels[None], label)
            return jax.tree.map(lambda a: a[0], found)

        return jax.vmap(of_one)(image_keys, batch['image'], batch['label'])

    return bits_per_dim


def _check(fields: ConfigDict, model: ScoreModel) -> None:
    ode.check(fields.solver, per_image=fields.per_image_steps, on_grid=False, field='eval.solver')
    choose(likelihood.PROBES, fields.divergence, 'eval.divergence')
    for name, least in (
        ('num_probes', 1),
        ('num_dequantizations', 1),
        ('num_bpd_images', 0),
        ('variational_draws', 0),
    ):
        if fields[name] < least:
            raise InputError(f'eval.{name}: {fields[name]}; at least {least} needed')
    if fields.importance_weighted and fields.num_dequantizations < 2:
        raise InputError(
            f'eval.importance_weighted: True needs several dequantisations of an image, and '
            f'eval.num_dequantizations is {fields.num_dequantizations}'
        )
    if fields.importance_weighted and fields.divergence != 'exact' and fields.num_probes < 2:
        raise InputError(
            'eval.importance_weighted: True is a bound if eval.num_probes is 2 or more, or '
            f"eval.divergence is 'exact'; they are {fields.num_probes} and {fields.divergence!r}"
        )
    if model.num_classes and not fields.per_image_steps:
        raise InputError(
            'eval.per_image_steps: False; a class-conditional network (model.num_classes) has a '
            'solve for each image, and so needs True'
        )


def summary(found: BitsPerDim, divergence: str) -> dict[str, float]:
    """What is reported: means over images, and their standard errors where they are known.

    The standard error is split into the parts of error_split.py.
    """
    exact = divergence == 'exact'
    errors = error_split.split(found.by_draw, exact)
    scalars = {
        'bits_per_dim': found.by_draw.mean(),
        'bits_per_dim_standard_error': errors.total,
        'bits_per_dim_error_of_data': errors.data,
        'bits_per_dim_error_of_dequantization': errors.dequantization,
        'bits_per_dim_error_of_probes': errors.probes,
        'bits_per_dim_images': len(found.by_draw),
        'bits_per_dim_nfe': found.nfe.mean(),
    }
    for name in ('importance_weighted', 'variational'):
        values = getattr(found, name)
        if values is not None:
            scalars[f'bits_per_dim_{name}'] = values.mean()
            scalars[f'bits_per_dim_{name}_standard_error'] = _standard_error(values)
    if found.round_trip_error is not None:
        scalars['round_trip_grey_levels'] = math.sqrt(np.mean(found.round_trip_error**2))
        scalars['round_trip_grey_levels_worst_image'] = found.round_trip_error.max()
    return {name: value for name, value in scalars.items() if not np.isnan(value)}


def _standard_error(values: np.ndarray) -> float:
    return error_split.split(values[:, None, None], exact=True).total

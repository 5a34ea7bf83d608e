"""Bits per dimension of test images, with what is known of their errors: from config.eval to a
function of a batch, and from all batches to the numbers that are reported."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

import bounds
import keys
import likelihood
from choices import InputError, choose
from datasets import quantization
from evaluation import error_split
from experiments.experiment import Batch, Params, ScoreModel, check_time, or_default
from solvers import latents, ode

# What the numbers depend on, of config.eval.
FIELDS = (
    *('t_min', 'solver', 'rtol', 'atol', 'per_image_steps', 'divergence', 'num_probes'),
    *('num_dequantizations', 'importance_weighted', 'variational_draws', 'round_trip'),
)


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
    names = 'divergence', 'num_probes'
    return Estimator(
        model,
        solve={**given, **_solve_options(fields)},
        probes={name: fields[name] for name in names},
        bound={**given, 'num_draws': fields.variational_draws},
        num_dequantizations=fields.num_dequantizations,
        is_importance_weighted=fields.importance_weighted,
        has_round_trip=fields.round_trip,
    ).of_batch


def _solve_options(fields: ConfigDict) -> dict[str, Any]:
    options = {name: fields[name] for name in ('solver', 'rtol', 'atol')}
    return {**options, 'per_image': fields.per_image_steps}


@dataclasses.dataclass(frozen=True)
class Estimator:
    """What is measured of images; options of the solver, the probes and the variational bound."""

    model: ScoreModel
    solve: dict[str, Any]
    probes: dict[str, Any]
    bound: dict[str, Any]
    num_dequantizations: int
    is_importance_weighted: bool
    has_round_trip: bool

    def of_batch(self, params, key, batch, index) -> BitsPerDim:
        """Of the images of a batch, which have these indices."""
        image_keys = keys.of_images(key, index)
        if not self.model.num_classes:
            return self.of_images(params, image_keys, batch['image'], None)

        def of_one(image_key, pixels, label):
            found = self.of_images(params, image_key[None], pixels[None], label)
            return jax.tree.map(lambda a: a[0], found)

        return jax.vmap(of_one)(image_keys, batch['image'], batch['label'])

    def of_images(self, params, image_keys, pixels, label) -> BitsPerDim:
        """Of images, given one class or none."""
        score_fn = self.model.score_fn(params, label)

        def draw(j):
            return self._one_dequantization(score_fn, *self._dequantized(image_keys, pixels, j))

        log_probs, nfe, bound = jax.lax.map(draw, jnp.arange(self.num_dequantizations))
        log_probs = jnp.moveaxis(log_probs, 0, 1)
        return BitsPerDim(
            by_draw=self._in_bits(log_probs),
            nfe=nfe.mean(axis=0),
            importance_weighted=self._in_bits(bounds.importance_weighted(log_probs))
            if self.is_importance_weighted
            else None,
            variational=None if bound is None else self._in_bits(-bound.mean(axis=0)),
            round_trip_error=self._round_trip_error(score_fn, image_keys, pixels)
            if self.has_round_trip
            else None,
        )

    def _dequantized(self, image_keys, pixels, j):
        """The j-th dequantisation, and keys for what comes after it."""
        keys_noise, keys_rest = keys.split(keys.fold_in(image_keys, j), 2)
        return quantization.dequantize_each(keys_noise, pixels, self.model.centered), keys_rest

    def _one_dequantization(self, score_fn, x, image_keys):
        keys_probes, keys_bound = keys.split(image_keys, 2)
        found = likelihood.log_prob(keys_probes, score_fn, x, **self.solve, **self.probes)
        bound = None
        if self.bound['num_draws']:
            bound = bounds.variational(keys_bound, score_fn, x, **self.bound).bound
        return found.by_probe, found.nfe, bound

    def _round_trip_error(self, score_fn, image_keys, pixels):
        x, _ = self._dequantized(image_keys, pixels, 0)
        latent, _ = latents.encode(score_fn, x, **self.solve)
        decoded, _ = latents.decode(score_fn, latent, **self.solve)
        return likelihood.round_trip_error(x, decoded) / quantization.bin_width(self.model.centered)

    def _in_bits(self, log_probs):
        bin_width = quantization.bin_width(self.model.centered)
        return likelihood.bits_per_dim(log_probs, math.prod(self.model.image_shape), bin_width)


def _check(fields: ConfigDict, model: ScoreModel) -> None:
    ode.check(fields.solver, per_image=fields.per_image_steps, on_grid=False, field='eval.solver')
    check_time('eval.t_min', fields.t_min, model.sde)
    choose(likelihood.PROBES, fields.divergence, 'eval.divergence')
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

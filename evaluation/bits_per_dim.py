"""Bits per dimension of test images, with what is known of their errors: an estimator of a batch,
and from all batches to the quantities that are reported."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import bounds
import keys
import likelihood
from choices import ArgumentError, choose
from datasets import quantization
from evaluation import error_split
from evaluation.quantities import LOWER, Quantity
from parameterization import Process
from shapes import Classes, Floats, ImageKeys, OneKey, PerImage, Pixels, State
from solvers import endings, latents
from solvers.endings import Ending
from solvers.ode import ODESolver

# The process of images: all of them, or those of one class.
ProcessOf = Callable[[Int[Array, ''] | None], Process]


class BitsPerDim(NamedTuple):
    """Of every image of a batch, in bits per dimension. None: not asked for.

    `by_draw` is that of every dequantisation and probe, `importance_weighted` the bound from all
    dequantisations, `variational` the variational bound. `round_trip_error` is the root mean square
    of what encoding and decoding changed, in grey levels (256ths of the range of the data).
    `ending` is that of the first solve that was not done, if any.
    """

    by_draw: Float[Array, 'batch draws probes']
    nfe: PerImage
    importance_weighted: PerImage | None = None
    variational: PerImage | None = None
    round_trip_error: PerImage | None = None
    ending: Ending | None = None


@dataclasses.dataclass(frozen=True)
class Estimator:
    """What is measured of images whose floats are `centered` or not.

    The density is that at `t_min` (None: the SDE's) under the ODE, by `solver`, with a `divergence`
    of likelihood.PROBES and `num_probes`. Of every image there are `num_dequantizations`, from all
    of which the bound is `importance_weighted` if asked for; the variational bound takes
    `variational_draws` times of each (0: there is none). `round_trip`: images are encoded and
    decoded.

    Raises ArgumentError for names that do not exist and for what is no bound.
    """

    centered: bool
    solver: ODESolver
    t_min: float | None = None
    divergence: str = 'rademacher'
    num_probes: int = 1
    num_dequantizations: int = 1
    importance_weighted: bool = False
    variational_draws: int = 8
    round_trip: bool = False

    def __post_init__(self):
        self.solver.check_adaptive()
        choose(likelihood.PROBES, self.divergence, 'divergence')
        if self.importance_weighted and self.num_dequantizations < 2:
            raise ArgumentError(
                'importance_weighted',
                'True needs several dequantisations of an image, and num_dequantizations is '
                f'{self.num_dequantizations}',
            )
        if self.importance_weighted and self.divergence != 'exact' and self.num_probes < 2:
            raise ArgumentError(
                'importance_weighted',
                "True is a bound if num_probes is 2 or more, or divergence is 'exact'; they are "
                f'{self.num_probes} and {self.divergence!r}',
            )

    def of_batch(
        self,
        process_of: ProcessOf,
        key: OneKey,
        index: Int[Array, 'batch'],
        pixels: Pixels,
        classes: Classes | None,
    ) -> BitsPerDim:
        """Of the images of a batch, which have these indices: what is drawn for an image depends on
        `key` and its index alone. Images of classes are measured one by one.
        """
        image_keys = keys.of_images(key, index)
        if classes is None:
            return self.of_images(process_of(None), image_keys, pixels)

        def of_one(image_key, pixels, label):
            found = self.of_images(process_of(label), image_key[None], pixels[None])
            return jax.tree.map(lambda a: a[0], found)

        return jax.vmap(of_one)(image_keys, pixels, classes)

    def of_images(self, process: Process, image_keys: ImageKeys, pixels: Pixels) -> BitsPerDim:
        """Of images of one process."""

        def draw(j):
            return self._one_dequantization(process, *self._dequantized(image_keys, pixels, j))

        log_probs, nfe, bound, ending = jax.lax.map(draw, jnp.arange(self.num_dequantizations))
        log_probs = jnp.moveaxis(log_probs, 0, 1)
        dim = math.prod(pixels.shape[1:])
        weighted = variational = error = None
        ending = endings.first_not_done(ending)
        if self.importance_weighted:
            weighted = self._in_bits(bounds.importance_weighted(log_probs), dim)
        if bound is not None:
            variational = self._in_bits(-bound.mean(axis=0), dim)
        if self.round_trip:
            error, both_ways = self._round_trip_error(process, image_keys, pixels)
            ending = endings.first_of(ending, *both_ways)
        by_draw = self._in_bits(log_probs, dim)
        return BitsPerDim(by_draw, nfe.mean(axis=0), weighted, variational, error, ending)

    def _dequantized(
        self, image_keys: ImageKeys, pixels: Pixels, j: int | Int[Array, '']
    ) -> tuple[Floats, ImageKeys]:
        """The j-th dequantisation, and keys for what comes after it."""
        keys_noise, keys_rest = keys.split(keys.fold_in(image_keys, j), 2)
        return quantization.dequantize_each(keys_noise, pixels, self.centered), keys_rest

    def _one_dequantization(
        self, process: Process, x: State, image_keys: ImageKeys
    ) -> tuple[Float[Array, 'batch probes'], Int[Array, 'batch'], PerImage | None, Ending]:
        keys_probes, keys_bound = keys.split(image_keys, 2)
        found = likelihood.log_prob(
            keys_probes,
            process,
            x,
            solver=self.solver,
            t_min=self.t_min,
            divergence=self.divergence,
            num_probes=self.num_probes,
        )
        bound = None
        if self.variational_draws:
            bound = bounds.variational(
                keys_bound, process, x, num_draws=self.variational_draws, t_min=self.t_min
            ).bound
        return found.by_probe, found.nfe, bound, found.ending

    def _round_trip_error(
        self, process: Process, image_keys: ImageKeys, pixels: Pixels
    ) -> tuple[PerImage, list[Ending]]:
        x, _ = self._dequantized(image_keys, pixels, 0)
        there = latents.encode(process, x, solver=self.solver, t_min=self.t_min)
        back = latents.decode(process, there.y, solver=self.solver, t_min=self.t_min)
        error = likelihood.round_trip_error(x, back.y) / quantization.bin_width(self.centered)
        return error, [there.ending, back.ending]

    def _in_bits(self, log_probs: Float[Array, '*shape'], dim: int) -> Float[Array, '*shape']:
        bin_width = quantization.bin_width(self.centered)
        return likelihood.bits_per_dim(log_probs, dim, bin_width)


def summary(found: BitsPerDim, divergence: str) -> list[Quantity]:
    """What is reported: means over images, and their standard errors where they are known.

    The standard error is split into the parts of error_split.py, of which those are left out that
    so many values cannot tell of.
    """
    errors = error_split.split(found.by_draw, exact=divergence == 'exact')
    num_images, num_draws, num_probes = found.by_draw.shape
    parts = {
        'data': num_images > 1,
        'dequantization': num_draws > 1,
        'probes': num_probes > 1 or divergence == 'exact',
    }
    quantities = [
        Quantity('bits_per_dim', float(found.by_draw.mean()), _known(errors.total), LOWER),
        *(
            Quantity(f'bits_per_dim_error_of_{part}', getattr(errors, part))
            for part, is_known in parts.items()
            if is_known
        ),
        Quantity('bits_per_dim_images', len(found.by_draw)),
        Quantity('bits_per_dim_nfe', float(found.nfe.mean()), better=LOWER),
    ]
    for name in ('importance_weighted', 'variational'):
        values = getattr(found, name)
        if values is not None:
            error = _known(error_split.split(values[:, None, None], exact=True).total)
            quantities.append(Quantity(f'bits_per_dim_{name}', float(values.mean()), error, LOWER))
    if found.round_trip_error is not None:
        root = math.sqrt(np.mean(found.round_trip_error**2))
        worst = float(found.round_trip_error.max())
        quantities.append(Quantity('round_trip_grey_levels', root, better=LOWER))
        quantities.append(Quantity('round_trip_grey_levels_worst_image', worst, better=LOWER))
    return quantities


def _known(error: float) -> float | None:
    return None if math.isnan(error) else float(error)

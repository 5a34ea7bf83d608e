"""RefineNet (Lin et al. 2017) with dilated convolutions, as the NCSNs use it (Song & Ermon 2019).

    down    per stage: two residual blocks, the first of which halves the size, or else dilates
    up      per stage, coarsest first: a refine block joins its output with what came from below

A refine block has residual convolution units (RCU) for each input, multi-scale fusion (MSF), which
brings all inputs to one size and adds them, chained residual pooling (CRP), and more units.

NCSNv2 (Song & Ermon 2020) does not see the noise level but for the sigma that the output is over.
In NCSN every normalisation depends on the label, and there are more of them: its blocks are called
with labels, and have `norm` where those of NCSNv2 have None.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

from choices import ArgumentError, check_options, option
from models import resampling
from models.convolution import Conv, Image, conv2d, dilated_conv2d
from models.layers import (
    ACTIVATIONS,
    WIDTH,
    Activation,
    Labels,
    dtype_option,
    in_precision,
    level_sigmas,
    precision_option,
    recomputing,
    remat_option,
)
from models.normalization import NORMALIZATIONS

Norm = Callable[..., nn.Module]
Resize = Callable[[Image, int, int], Array]
Levels = Int[Array, 'batch']
Output = Float[Array, 'batch _ _ features']


def ncsn_conv(
    x: Image, features: int, dtype: DTypeLike, dilation: int = 1, bias: bool = True
) -> Output:
    """A 3x3 convolution with the initialisation of PyTorch: uniform within 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(9 * x.shape[-1])

    def uniform(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    op = conv2d if dilation == 1 else functools.partial(dilated_conv2d, dilation=dilation)
    return Conv(features, 3, op, uniform, dtype, bias_init=uniform if bias else None)(x)


class ConvMeanPool(nn.Module):
    """A convolution, then half the size by averaging."""

    features: int
    size: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Output:
        return resampling.naive_downsample_2d(Conv(self.features, self.size, dtype=self.dtype)(x))


class ResidualBlock(nn.Module):
    """Normalisation, activation and convolution, twice, and `x`.

    With `down`, `x` is convolved too, and the size is halved unless convolutions are dilated.
    """

    features: int
    norm: Norm
    act: Activation
    down: bool = False
    dilation: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image, *labels: Levels) -> Output:
        conv = functools.partial(ncsn_conv, dtype=self.dtype, dilation=self.dilation)
        h = conv(self.norm(act=self.act)(x, *labels), x.shape[-1])
        h = self.norm(act=self.act)(h, *labels)
        if not self.down:
            return x + conv(h, self.features)
        if self.dilation > 1:
            return conv(h, self.features) + conv(x, self.features)
        h = ConvMeanPool(self.features, dtype=self.dtype)(h)
        return h + ConvMeanPool(self.features, size=1, dtype=self.dtype)(x)


class RCUBlock(nn.Module):
    """Residual units of two convolutions each."""

    num_units: int
    norm: Norm | None
    act: Activation
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Image, *labels: Levels) -> Image:
        for _ in range(self.num_units):
            h = x
            for _ in range(2):
                h = self.norm(act=self.act)(h, *labels) if self.norm else self.act(h)
                h = ncsn_conv(h, x.shape[-1], self.dtype, bias=False)
            x = x + h
        return x


class MSFBlock(nn.Module):
    """The sum of all inputs, convolved and brought to the size of the first."""

    features: int
    norm: Norm | None
    resize: Resize
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, xs: tuple[Array, ...], *labels: Levels) -> Output:
        hs = [self.norm()(x, *labels) if self.norm else x for x in xs]
        hs = [ncsn_conv(h, self.features, self.dtype) for h in hs]
        return sum(self.resize(h, *xs[0].shape[1:3]) for h in hs)


class CRPBlock(nn.Module):
    """act(x), and what pooling and convolution make of it, and make of that."""

    norm: Norm | None
    act: Activation
    dtype: DTypeLike = jnp.float32

    pool = staticmethod(resampling.max_pool)

    @nn.compact
    def __call__(self, x: Image, *labels: Levels) -> Image:
        x = path = self.act(x)
        for _ in range(2):
            path = self.norm()(path, *labels) if self.norm else path
            path = ncsn_conv(self.pool(path), x.shape[-1], self.dtype, bias=False)
            x = x + path
        return x


class RefineBlock(nn.Module):
    """Units for each input, fusion if there are several, pooling, `num_units` more units."""

    features: int
    num_units: int
    norm: Norm | None
    act: Activation
    resize: Resize
    dtype: DTypeLike = jnp.float32

    parts = (RCUBlock, MSFBlock, CRPBlock)

    @nn.compact
    def __call__(self, xs: tuple[Array, ...], *labels: Levels) -> Output:
        units, fusion, pooling = self.parts
        hs = tuple(units(2, self.norm, self.act, self.dtype)(x, *labels) for x in xs)
        h = hs[0]
        if len(hs) > 1:
            h = fusion(self.features, self.norm, self.resize, self.dtype)(hs, *labels)
        h = pooling(self.norm, self.act, self.dtype)(h, *labels)
        return units(self.num_units, self.norm, self.act, self.dtype)(h, *labels)


class Stage(NamedTuple):
    """Two residual blocks; `features` and `refined`, those of the way up, are in units of nf."""

    features: int
    refined: int
    down: bool = True
    dilation: int = 1


class RefineNet(nn.Module):
    """The network: `model.apply({'params': params}, x, labels)` is float32 of the shape of `x`.

    `labels` are indices of SMLD levels. There is no dropout; `train` is what other networks have.
    """

    # What differs between the NCSNs.
    stages = ()  # of `Stage`, finest first
    blocks = (ResidualBlock, RefineBlock)
    normalizations = NORMALIZATIONS
    interpolations = {
        'bilinear': resampling.resize_bilinear,
        'nearest_neighbor': resampling.resize_nearest,
    }

    nf: int = option(128, 'features of the first stage', WIDTH)
    nonlinearity: str = option('elu', 'activation', ACTIVATIONS)
    normalization: str = option('InstanceNorm++', 'what features are normalised by', normalizations)
    interpolation: str = option(
        'bilinear', 'how the smaller of two outputs is brought to the larger size', interpolations
    )
    scale_by_sigma: bool = option(True, 'the output is divided by sigma')
    dtype: str = dtype_option()
    precision: str = precision_option()
    remat: bool = remat_option()

    # Not for users: an experiment fills these from its data and its SDE.
    centered: bool = True  # images come in [-1, 1]; otherwise in [0, 1], and are mapped here
    sigma_min: float = 0.01  # sigma falls geometrically to sigma_min at label num_scales - 1 ...
    sigma_max: float = 50.0  # ... from sigma_max at label 0
    num_scales: int = 1000

    integer_labels = True  # labels are levels of a chain

    def __post_init__(self):
        check_options(self)
        super().__post_init__()

    def plan(self, height: int, width: int) -> tuple[Stage, ...]:
        """The stages, finest first; raises ArgumentError for sizes that they cannot halve."""
        multiple = 2 ** sum(stage.down and stage.dilation == 1 for stage in self.stages)
        if height % multiple or width % multiple:
            raise ArgumentError(
                'image_size',
                f'this network needs height and width to be multiples of {multiple}, and images '
                f'are {height}x{width}',
            )
        return self.stages

    @nn.compact
    @in_precision
    def __call__(self, x: Image, labels: Labels, train: bool = False) -> Image:
        stages = self.plan(*x.shape[1:3])
        levels = self._conditions(labels.astype(jnp.int32))
        h = ncsn_conv(x if self.centered else 2 * x - 1, self.nf, self.dtype)
        outputs = self._down(stages, h, levels)
        h = self._up(stages, outputs, levels)
        h = self._norm(act=ACTIVATIONS[self.nonlinearity])(h, *levels)
        y = ncsn_conv(h, x.shape[-1], self.dtype).astype(jnp.float32)
        if not self.scale_by_sigma:
            return y
        return y / level_sigmas(labels, self.sigma_min, self.sigma_max, self.num_scales)

    def _down(self, stages, h, levels):
        """The output of every stage, finest first."""
        block = functools.partial(
            recomputing(self.blocks[0], self.remat),
            norm=self._norm,
            act=ACTIVATIONS[self.nonlinearity],
            dtype=self.dtype,
        )
        outputs = []
        for stage in stages:
            features, dilation = stage.features * self.nf, stage.dilation
            h = block(features, down=stage.down, dilation=dilation)(h, *levels)
            outputs.append(block(features, dilation=dilation)(h, *levels))
            h = outputs[-1]
        return outputs

    def _up(self, stages, outputs, levels):
        block = functools.partial(
            recomputing(self.blocks[1], self.remat),
            norm=self._norm if levels else None,
            act=ACTIVATIONS[self.nonlinearity],
            resize=self.interpolations[self.interpolation],
            dtype=self.dtype,
        )
        below = ()
        for stage, output in reversed(list(zip(stages, outputs, strict=True))):
            num_units = 3 if stage is stages[0] else 1
            h = block(stage.refined * self.nf, num_units)((output, *below), *levels)
            below = (h,)
        return h

    def _conditions(self, labels: Levels) -> tuple[Levels, ...]:
        """What blocks and normalisations are called with besides their input."""
        return ()

    @property
    def _norm(self) -> Norm:
        return functools.partial(self.normalizations[self.normalization], dtype=self.dtype)

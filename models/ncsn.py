"""NCSN (Song & Ermon 2019, appendix A): every normalisation depends on the noise level.

The published JAX port of it does not run. Parameters have the names that it would give them; the
arithmetic is that of the original PyTorch code: corners are aligned by bilinear interpolation, the
variance of InstanceNorm++ is unbiased, and the third refine block has nf features.
"""

import functools

from choices import option
from models import resampling
from models.normalization import ConditionalInstanceNorm2dPlus
from models.refinenet import (
    CRPBlock,
    MSFBlock,
    RCUBlock,
    RefineBlock,
    RefineNet,
    ResidualBlock,
    Stage,
)


class ConditionalResidualBlock(ResidualBlock):
    """The residual block, with normalisations of the noise level."""


class CondRCUBlock(RCUBlock):
    """Residual units, with normalisations of the noise level."""


class CondMSFBlock(MSFBlock):
    """Multi-scale fusion, with normalisations of the noise level."""


class CondCRPBlock(CRPBlock):
    """Chained residual pooling by means, with normalisations of the noise level."""

    pool = staticmethod(resampling.mean_pool)


class CondRefineBlock(RefineBlock):
    """The refine block of these parts."""

    parts = (CondRCUBlock, CondMSFBlock, CondCRPBlock)


class NCSN(RefineNet):
    """The network of `RefineNet`, four stages; `num_classes` is the number of noise levels."""

    stages = (
        Stage(1, 1, down=False),
        Stage(2, 1),
        Stage(2, 2, dilation=2),
        Stage(2, 2, dilation=4),
    )
    blocks = (ConditionalResidualBlock, CondRefineBlock)
    normalizations = {'InstanceNorm++': ConditionalInstanceNorm2dPlus}
    interpolations = {
        'bilinear': functools.partial(resampling.resize_bilinear, align_corners=True),
        'nearest_neighbor': resampling.resize_nearest,
    }

    normalization: str = option('InstanceNorm++', 'what features are normalised by', normalizations)
    scale_by_sigma: bool = option(False, 'the output is divided by sigma')

    # Not for users: an experiment fills this.
    num_classes: int = 10

    def _conditions(self, labels):
        return (labels,)

    @property
    def _norm(self):
        return functools.partial(
            ConditionalInstanceNorm2dPlus, num_classes=self.num_classes, dtype=self.dtype
        )

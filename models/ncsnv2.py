"""NCSNv2 (Song & Ermon 2020, appendix B) for images of about 64, 128 and 256 pixels.

Names and features are those of the published JAX networks; interpolation takes pixels as squares.
"""

from models.refinenet import RefineNet, Stage


class NCSNv2For64(RefineNet):
    """Four stages; one halves the size."""

    stages = (
        Stage(1, 1, down=False),
        Stage(2, 2),
        Stage(2, 2, dilation=2),
        Stage(2, 2, dilation=4),
    )


class NCSNv2For128(RefineNet):
    """Five stages; two halve the size."""

    stages = (
        Stage(1, 1, down=False),
        Stage(2, 1),
        Stage(2, 2),
        Stage(4, 2, dilation=2),
        Stage(4, 4, dilation=4),
    )


class NCSNv2For256(RefineNet):
    """Six stages; three halve the size."""

    stages = (
        Stage(1, 1, down=False),
        Stage(2, 1),
        Stage(2, 2),
        Stage(2, 2),
        Stage(4, 2, dilation=2),
        Stage(4, 4, dilation=4),
    )

"""A residual multi-layer perceptron: a score network for codes that have no neighbours, as those of
a flat autoencoder.

All numbers of a state go through the same layers, so the parameters depend on how many there are.
The last layer starts at zero, and so does the output.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from choices import check_options, option
from models.convolution import Image
from models.layers import (
    DTYPES,
    FEW,
    WIDTH,
    Labels,
    dtype_option,
    in_precision,
    positional_embedding,
    precision_option,
    recomputing,
    remat_option,
    swish,
)

Features = Float[Array, 'batch features']


class ResidualMLP(nn.Module):
    """The network: `model.apply({'params': params}, x, labels)` is a float32 array of x's shape.

    `labels` say how noisy each state is, as positions between 0 and about 1000.
    """

    width: int = option(256, 'features of every layer', WIDTH)
    num_blocks: int = option(3, 'residual blocks, of two layers each', FEW)
    embedding_size: int = option(64, 'sines and cosines of the noise level', WIDTH)
    dtype: str = dtype_option()
    precision: str = precision_option()
    remat: bool = remat_option()

    # Not for users: an experiment fills these.
    centered: bool = True  # states come in [-1, 1] or as they are; otherwise in [0, 1]
    out_channels: int = 0  # of the output; 0: as many as the input has

    integer_labels = False  # any number is a label

    def __post_init__(self):
        check_options(self)
        super().__post_init__()

    def plan(self, height: int, width: int) -> None:
        """Any size goes."""

    @nn.compact
    @in_precision
    def __call__(self, x: Image, labels: Labels, train: bool = False) -> Image:
        dtype = DTYPES[self.dtype]
        shape = (*x.shape[:-1], self.out_channels or x.shape[-1])
        temb = positional_embedding(labels.astype(jnp.float32), self.embedding_size)
        temb = swish(nn.Dense(self.width, dtype=dtype)(temb))
        h = (x if self.centered else 2 * x - 1).reshape(len(x), -1)
        h = nn.Dense(self.width, dtype=dtype)(h)
        block = recomputing(Block, self.remat)
        for _ in range(self.num_blocks):
            h = block(self.width, dtype)(h, temb)
        size = shape[1] * shape[2] * shape[3]
        y = nn.Dense(size, kernel_init=nn.initializers.zeros, dtype=dtype)(swish(h))
        return y.reshape(shape).astype(jnp.float32)


class Block(nn.Module):
    """Two layers, of which the first sees the noise level, around which its input goes too."""

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, h: Features, temb: Features) -> Features:
        r = nn.LayerNorm(dtype=self.dtype)(h)
        r = nn.Dense(self.width, dtype=self.dtype)(swish(r))
        r = r + nn.Dense(self.width, dtype=self.dtype)(temb)
        return h + nn.Dense(self.width, dtype=self.dtype)(swish(r))

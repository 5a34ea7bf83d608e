"""The shapes and types of arrays that functions take and return, by name.

`batch` is the number of images (or vectors), `*shape` the shape of one: (height, width, channels)
or (dim,). Tests check every annotation as functions run; see pyproject.toml.
"""

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

# States x_t, one image a row, and one number for each image.
State = Float[Array, 'batch *shape']
PerImage = Float[Array, 'batch']
Counts = Int[Array, 'batch']
Flags = Bool[Array, 'batch']
Classes = Int[Array, 'batch']

# Measurements of the images of a batch, each one's own or one for all.
Measured = Float[Array, '#batch *measured']

# Keys: one for all, or one for each image.
OneKey = Key[Array, '']
ImageKeys = Key[Array, 'batch']

# Times of any shape, for coefficients; times that meet a state are one for each image, or one for
# all; a grid is falling times.
Scalar = Float[Array, '']
Time = Float[Array, '...']
BatchTime = Float[Array, 'batch'] | Float[Array, '']
Grid = Float[Array, 'times']

# Images as networks see them, and in the 8 bits that files hold, on devices and in memory.
Floats = Float[Array, 'batch height width channels']
Pixels = UInt8[Array, 'batch height width channels']
HostPixels = UInt8[np.ndarray, 'batch height width channels']
ImageShape = tuple[int, int, int]

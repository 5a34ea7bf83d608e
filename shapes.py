"""The shapes and types of arrays that the method's functions take and return, by name.

`batch` is the number of images (or vectors), `*shape` the shape of one: (height, width, channels)
or (dim,). Tests check every annotation as functions run; see pyproject.toml.
"""

from jaxtyping import Array, Float, Int, Key, UInt8

# States x_t, one image a row, and one number for each image.
State = Float[Array, 'batch *shape']
PerImage = Float[Array, 'batch']
Counts = Int[Array, 'batch']
ImageKeys = Key[Array, 'batch']

# Times of any shape, for coefficients; times that meet a state are one for each image, or one for
# all.
Time = Float[Array, '...']
BatchTime = Float[Array, 'batch'] | Float[Array, '']
Scalar = Float[Array, '']

# Images as networks see them, and in the 8 bits that files hold.
Floats = Float[Array, 'batch height width channels']
Pixels = UInt8[Array, 'batch height width channels']

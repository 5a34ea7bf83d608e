"""Convolution and its gradients as three bilinear primitives, fast inside loops too.

    conv2d            y[b, i, j, o] = sum over u, v, c of  x[b, i + u, j + v, c] w[u, v, c, o]
    input_gradient    x[b, i + u, j + v, c] += y[b, i, j, o] w[u, v, c, o]
    weight_gradient   w[u, v, c, o] = sum over b, i, j of  x[b, i + u, j + v, c] y[b, i, j, o]

for `x` padded with zeros. They are the derivatives of one trilinear form, and so the transposes of
each are the other two. The gradients that JAX derives for its own convolution run many times slower
on XLA's CPU backend inside the body of a loop, which is where a scanned training step lives: only
plain NHWC convolutions are fast there, and products. The primitives are lowered to nothing else.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, DTypeLike, Float

Image = Float[Array, 'batch height width channels']
Kernel = Float[Array, 'kernel_height kernel_width channels features']
Output = Float[Array, 'batch _ _ features']
Padding = str | tuple[tuple[int, int], tuple[int, int]]

NHWC = ('NHWC', 'HWIO', 'NHWC')
CACHED_BYTES = 2**19  # of `y` that weight_gradient meets at a time on a CPU: part of a core's cache


def conv2d(x: Image, w: Kernel, padding: Padding = 'SAME') -> Output:
    """Correlation of `x` and `w`; padding 'SAME', 'VALID' or ((top, bottom), (left, right))."""
    return conv2d_p.bind(x, w, padding=_pads(x, w, 1, padding), precision=_precision())


def conv2d_stride2(x: Image, w: Kernel, padding: Padding = 'SAME') -> Output:
    """Every second row and column of a convolution, padded as `lax.conv` with strides (2, 2) pads.

    The pixels of each 2x2 cell become channels of one, and `w` likewise: this is a convolution at
    stride 1 of half the size, and so are its gradients.
    """
    w_even = jnp.pad(w, ((0, w.shape[0] % 2), (0, w.shape[1] % 2), (0, 0), (0, 0)))
    u, v, c, o = w_even.shape
    cells = w_even.reshape(u // 2, 2, v // 2, 2, c, o).transpose(0, 2, 1, 3, 4, 5)
    # Whole cells: as many rows as the windows of the even kernel see.
    pads = [
        (low, 2 * ((n + low + high - k) // 2) + k + k % 2 - n - low, 0)
        for n, k, (low, high) in zip(x.shape[1:3], w.shape, _pads(x, w, 2, padding), strict=False)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *pads, (0, 0, 0)))
    return conv2d(space_to_depth(x), cells.reshape(u // 2, v // 2, 4 * c, o), 'VALID')


def dilated_conv2d(x: Image, w: Kernel, dilation: int) -> Output:
    """The convolution with `dilation` - 1 zeros between any two taps of `w`, padded to keep size.

    Pixels that are multiples of `dilation` apart meet each other only: each set of them is an image
    of its own, so that this is a dense convolution of more and smaller images.
    """
    b, height, width, c = x.shape
    rows, columns = (math.ceil(n / dilation) for n in (height, width))
    excess = dilation * rows - height, dilation * columns - width
    x = jnp.pad(x, ((0, 0), (0, excess[0]), (0, excess[1]), (0, 0)))
    x = x.reshape(b, rows, dilation, columns, dilation, c).transpose(0, 2, 4, 1, 3, 5)
    y = conv2d(x.reshape(-1, rows, columns, c), w)
    y = y.reshape(b, dilation, dilation, rows, columns, -1).transpose(0, 3, 1, 4, 2, 5)
    return y.reshape(b, dilation * rows, dilation * columns, -1)[:, :height, :width]


def space_to_depth(x: Image) -> Float[Array, 'batch _ _ _']:
    """Each 2x2 cell of pixels as one pixel of four times the channels, in row-major order."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def depth_to_space(x: Image) -> Float[Array, 'batch _ _ _']:
    """The inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, 2 * h, 2 * w, c // 4)


class Conv(nn.Module):
    """A convolution; parameters `kernel` [size, size, channels, features] and `bias`, if any.

    `op` is what it does with the kernel: `conv2d`, or the same fused with a change of size.
    """

    features: int
    size: int = 3
    op: Callable[[Image, Kernel], Array] = conv2d
    kernel_init: Callable = nn.initializers.lecun_normal()
    dtype: DTypeLike = jnp.float32
    bias_init: Callable | None = nn.initializers.zeros  # None: there is no bias

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, 'batch _ _ features']:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param('kernel', self.kernel_init, shape)
        y = self.op(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.bias_init is None:
            return y
        bias = self.param('bias', self.bias_init, (self.features,))
        return y + bias.astype(self.dtype)


# The primitives. Their parameter `padding` is ((top, bottom), (left, right)), maybe negative;
# `precision` is that of lax.conv_general_dilated.


def weight_gradient(x: Image, y: Output, padding: Padding) -> Kernel:
    """The gradient of sum(y * conv2d(x, w, padding)) with respect to `w`."""
    return weight_gradient_p.bind(x, y, padding=padding, precision=_precision())


def input_gradient(y: Output, w: Kernel, padding: Padding) -> Float[Array, 'batch _ _ _']:
    """The gradient of sum(y * conv2d(x, w, padding)) with respect to `x`."""
    return input_gradient_p.bind(y, w, padding=padding, precision=_precision())


def _precision():
    """JAX's name for what products of float32 numbers are: that of the place where a network is
    applied, which holds for its gradients too, though those are made elsewhere."""
    return jax.config.jax_default_matmul_precision


def _pads(x, w, stride, padding):
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], w.shape[:2], (stride, stride), padding)
    return tuple((int(low), int(high)) for low, high in padding)


def _convolve(x, w, *, padding, precision=None, dimensions=NHWC):
    # XLA's CPU backend reads beyond its input where a padding is negative: crop first.
    crops = {dimensions[0].index(axis): pads for axis, pads in zip('HW', padding, strict=True)}
    crops = [(*(min(p, 0) for p in crops.get(i, (0, 0))), 0) for i in range(4)]
    x = lax.pad(x, jnp.zeros((), x.dtype), crops)
    padding = [tuple(max(p, 0) for p in pads) for pads in padding]
    return lax.conv_general_dilated(
        x, w, (1, 1), padding, dimension_numbers=dimensions, precision=precision
    )


def _pad(x, padding):
    """Zeros around images, or, where a padding is negative, less of them."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0)))


def _convolve_turned(y, w, *, padding, precision=None):
    """`input_gradient` as a convolution of `y`, with `w` flipped and its channels exchanged."""
    sizes = zip(w.shape[:2], padding, strict=True)
    padding = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in sizes)
    return _convolve(y, w[::-1, ::-1].swapaxes(2, 3), padding=padding, precision=precision)


def _spread(y, w, *, padding, precision):
    """`input_gradient` as a product, if `w` is so large that turning it takes long.

    It has what each pixel of `y` gives to its window of `x`, whose overlaps are then added up.
    """
    if not _is_large(w.size, w.shape[:2], y):
        return _convolve_turned(y, w, padding=padding, precision=precision)
    given = _product(y.reshape(-1, y.shape[-1]), w.reshape(-1, w.shape[-1]), axis=1)
    given = given.reshape(*y.shape[:3], *w.shape[:3])
    taps = _shifts(w.shape[:2], padding)
    parts = (_pad(given[:, :, :, u, v], [(-n, -m) for n, m in pads]) for (u, v), pads in taps)
    return sum(parts).astype(y.dtype)


def _product(a, b, axis):
    """Sums over `axis` of both matrices, in no less than float32."""
    dimensions = ((axis,), (axis,)), ((), ())
    dtype = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, dimensions, preferred_element_type=dtype)


def _is_large(kernel_elements, kernel_shape, images):
    """Whether a CPU is faster with both gradients as products: those of kernels much larger than
    the images, and of kernels of one pixel with many channels."""
    return kernel_elements > (2**14 if kernel_shape == (1, 1) else 4 * images.size)


def _shifts(kernel_shape, padding):
    """The taps of a kernel, with the padding that brings what each meets to the output's pixels."""
    for tap in np.ndindex(*kernel_shape):
        sizes = zip(tap, kernel_shape, padding, strict=True)
        yield tap, [(low - u, high - (k - 1 - u)) for u, k, (low, high) in sizes]


def _correlate(x, y, *, padding, precision=None):
    """`weight_gradient` as JAX derives it: channels are the batch, and the batch is summed over."""
    dimensions = ('CHWN', 'IHWO', 'HWNC')
    return _convolve(x, y, padding=padding, precision=precision, dimensions=dimensions)


def _correlate_in_parts(x, y, *, padding, shards=1):
    """`weight_gradient` as a sum of plain convolutions whose kernels (images of `y`) fit the cache.

    Parts are multiples of `shards`, if the batch is: then each device has its share of every part.
    """
    batch, dtype = x.shape[0], jnp.promote_types(x.dtype, jnp.float32)
    fitting = CACHED_BYTES * batch * shards // (y.size * y.dtype.itemsize)
    least = shards if batch % shards == 0 else 1
    sizes = [n for n in range(least, batch + 1, least) if batch % n == 0]
    size = max(n for n in sizes if n <= max(fitting, least))
    pointwise = x.shape[1:3] == y.shape[1:3] and not any(sum(padding, ()))
    # Kernels larger than the image are slow, even where its padding makes it larger: pad by hand.
    fits = x.shape[1] >= y.shape[1] and x.shape[2] >= y.shape[2]

    def part(i):
        # The loop closes over arrays in the shape that others need them in too: else XLA would
        # compute them twice. A part has images from the whole batch, and so from each shard of it.
        split = (a.reshape(size, batch // size, *a.shape[1:]) for a in (x, y))
        x_i, y_i = (lax.dynamic_index_in_dim(a, i, 1, keepdims=False) for a in split)
        if pointwise:
            return jnp.einsum('bhwc,bhwo->co', x_i, y_i)[:, None, None].astype(dtype)
        x_i, pads = (x_i, padding) if fits else (_pad(x_i, padding), ((0, 0), (0, 0)))
        w = _convolve(x_i.transpose(3, 1, 2, 0), y_i.transpose(1, 2, 0, 3), padding=pads)
        return w.astype(dtype)

    if size == batch:
        total = part(0)
    else:
        zeros = jnp.zeros_like(jax.eval_shape(part, 0))
        total = lax.fori_loop(0, batch // size, lambda i, total: total + part(i), zeros)
    return total.transpose(1, 2, 0, 3).astype(x.dtype)


def _correlate_by_size(x, y, *, padding, precision=None, shards=1):
    """`weight_gradient` by the faster way: in parts, or, for a large `w`, as one product."""
    sizes = zip(x.shape[1:3], y.shape[1:3], padding, strict=True)
    shape = *(n + sum(pads) - m + 1 for n, m, pads in sizes), x.shape[3], y.shape[3]
    if not _is_large(math.prod(shape), shape[:2], y):
        return _correlate_in_parts(x, y, padding=padding, shards=shards)
    windows = jnp.stack([_pad(x, pads) for _, pads in _shifts(shape[:2], padding)], 3)
    w = _product(windows.reshape(-1, math.prod(shape[:3])), y.reshape(-1, shape[3]), axis=0)
    return w.reshape(shape).astype(x.dtype)


def _lower_by_size(context, x, y, *, padding, precision):
    shards = getattr(context.module_context.axis_context, 'num_devices', None) or 1
    lower = mlir.lower_fun(_correlate_by_size, multiple_results=False)
    return lower(context, x, y, padding=padding, shards=shards)


def _define(primitive, plain, transposes, joins):
    """Tells JAX all about a bilinear primitive (a, b) -> `plain(a, b)`.

    Under vmap, the new axis of an operand joins one that is the output's too: its batch or
    channels. `joins` has that axis of the operand and of the output, for `a` and for `b`. The new
    axis is the minor one: a batch that devices share stays in the same parts.
    """

    @functools.cache  # Networks have many alike, and tracing one takes a millisecond.
    def traced(padding, *operands):
        a, b = (jax.ShapeDtypeStruct(*operand) for operand in operands)
        return jax.eval_shape(lambda a, b: plain(a, b, padding=padding), a, b)

    def shape(a, b, *, padding, precision):
        out = traced(padding, (a.shape, a.dtype), (b.shape, b.dtype))
        return jax.core.ShapedArray(out.shape, out.dtype)

    def batched(operands, axes, **params):
        if None not in axes:
            return jax.vmap(lambda a, b: plain(a, b, **params), axes)(*operands), 0
        i = 0 if axes[1] is None else 1
        axis, out_axis = joins[i]
        a = jnp.moveaxis(operands[i], axes[i], axis + 1)
        joined = a.reshape(*a.shape[:axis], -1, *a.shape[axis + 2 :])
        operands = (joined, operands[1]) if i == 0 else (operands[0], joined)
        out = primitive.bind(*operands, **params)
        split = a.shape[axis : axis + 2]
        out = out.reshape(*out.shape[:out_axis], *split, *out.shape[out_axis + 1 :])
        return out, out_axis + 1

    bind = jax.jit(
        lambda a, b, padding, precision: primitive.bind(a, b, padding=padding, precision=precision),
        static_argnums=(2, 3),
    )

    def run(a, b, *, padding, precision):
        # Of a jit that is disabled, as to look for NaN, this would be called again.
        with jax.disable_jit(False):
            return bind(a, b, padding, precision)

    primitive.def_impl(run)
    primitive.def_abstract_eval(shape)
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=False))
    ad.defbilinear(primitive, *transposes)
    batching.primitive_batchers[primitive] = batched


conv2d_p = Primitive('conv2d')
input_gradient_p = Primitive('conv2d_input_gradient')
weight_gradient_p = Primitive('conv2d_weight_gradient')
_define(
    conv2d_p,
    plain=_convolve,
    transposes=(
        lambda y, x, w, **params: input_gradient_p.bind(y, w, **params),
        lambda y, x, w, **params: weight_gradient_p.bind(x, y, **params),
    ),
    joins=((0, 0), (3, 3)),
)
_define(
    input_gradient_p,
    plain=_convolve_turned,
    transposes=(
        lambda x, y, w, **params: conv2d_p.bind(x, w, **params),
        lambda x, y, w, **params: weight_gradient_p.bind(x, y, **params),
    ),
    joins=((0, 0), (2, 3)),
)
_define(
    weight_gradient_p,
    plain=_correlate,
    transposes=(
        lambda w, x, y, **params: input_gradient_p.bind(y, w, **params),
        lambda w, x, y, **params: conv2d_p.bind(x, w, **params),
    ),
    joins=((3, 2), (3, 3)),
)
mlir.register_lowering(
    input_gradient_p, mlir.lower_fun(_spread, multiple_results=False), platform='cpu'
)
mlir.register_lowering(weight_gradient_p, _lower_by_size, platform='cpu')

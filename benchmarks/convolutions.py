"""3x3 convolutions alone and their gradients, as shares of the rate of a matrix product.

    python -m benchmarks.convolutions [--repeats 9] [--devices 1]

Of the shapes that the published CIFAR-10 networks spend their time in: as they are here, and as two
formulations by matrix products, nine of shifted images or one of all windows (im2col). It is the
bound of what a network of them can reach. Several devices share the images, and sum the gradients
of kernels.
"""

import argparse
import functools

import jax
import jax.numpy as jnp

from benchmarks import machine, networks
from devices import sharding
from models import convolution

# Images, their height and width, channels in and out.
SHAPES = [
    (16, 32, 32, 32),
    (16, 32, 64, 32),
    (16, 16, 64, 64),
    (16, 16, 128, 64),
    (16, 8, 64, 64),
    (16, 4, 64, 64),
    (4, 32, 128, 128),
    (4, 32, 256, 128),
    (4, 16, 256, 256),
    (4, 16, 512, 256),
    (4, 8, 256, 256),
    (4, 4, 256, 256),
]
PADDING = ((1, 1), (1, 1))


def windows(x):
    """The images shifted by each tap of a 3x3 kernel."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), *PADDING, (0, 0)))
    return [x[:, u : u + height, v : v + width] for u in range(3) for v in range(3)]


def shifted_products(x, w):
    """A product for each tap."""
    taps = w.reshape(9, *w.shape[2:])
    return sum(jnp.tensordot(image, tap, 1) for image, tap in zip(windows(x), taps, strict=True))


def im2col(x, w):
    """One product."""
    return jnp.tensordot(jnp.concatenate(windows(x), -1), w.reshape(-1, w.shape[-1]), 1)


def im2col_kernel_gradient(x, y):
    """The gradient of a kernel by one product."""
    columns = jnp.concatenate(windows(x), -1)
    gradient = jnp.tensordot(columns, y, ((0, 1, 2), (0, 1, 2)))
    return gradient.reshape(3, 3, x.shape[-1], -1)


FORMS = {
    'forward': lambda x, w, y: convolution.conv2d(x, w),
    'nine products': lambda x, w, y: shifted_products(x, w),
    'im2col': lambda x, w, y: im2col(x, w),
    'gradient of images': lambda x, w, y: convolution.input_gradient(y, w, PADDING),
    'gradient of kernels': lambda x, w, y: convolution.weight_gradient(x, y, PADDING),
    'the same, im2col': lambda x, w, y: im2col_kernel_gradient(x, y),
}


def row(shape: tuple, repeats: int, mesh: jax.sharding.Mesh) -> str:
    """The cells of a shape, whose images are split over a mesh."""
    batch, size, channels, features = shape
    keys = jax.random.split(jax.random.key(0), 3)
    x, y = (
        jax.random.normal(key, (batch, size, size, depth))
        for key, depth in zip(keys[:2], (channels, features), strict=True)
    )
    w = jax.random.normal(keys[2], (3, 3, channels, features))
    x, y = networks.place(mesh, (x, y), True)
    w = networks.place(mesh, w, False)
    runs = {name: functools.partial(jax.jit(form), x, w, y) for name, form in FORMS.items()}
    # One after another: what the memory of a large one was is slow to be written anew.
    seconds = {name: networks.medians({name: run}, repeats)[name] for name, run in runs.items()}
    operations = 18 * batch * size**2 * channels * features
    rate = networks.peak(repeats)
    shares = [f'{operations / seconds[name] / rate:.0%}' for name in FORMS]
    return ' | '.join([f'{batch}, {size}x{size}, {channels} to {features}', *shares])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=9)
    parser.add_argument('--devices', type=int, default=1)
    args = parser.parse_args()
    sharding.use_cores(args.devices, data=args.devices)
    mesh = sharding.create_mesh()
    print(f'Medians of {args.repeats}, {args.devices} device(s); {machine.name()}\n')
    print('| images, channels | ' + ' | '.join(FORMS) + ' |')
    print('| --- ' * (len(FORMS) + 1) + '|')
    for shape in SHAPES:
        print(f'| {row(shape, args.repeats, mesh)} |', flush=True)


if __name__ == '__main__':
    main()

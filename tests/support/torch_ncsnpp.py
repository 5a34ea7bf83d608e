"""The parameters of the published PyTorch U-Nets (score_sde_pytorch, models/), by name.

Written from their constructors, which make a list of modules; not from ours, which are checked by
it.
"""

from collections.abc import Iterator

Shapes = dict[str, tuple[int, ...]]


def ddpm_shapes(size: int, channels: int, **fields) -> Shapes:
    """Those of DDPM, which has the layers of NCSN++ with this block."""
    return shapes(size, channels, **fields, resblock_type='ddpm')


def shapes(size: int, channels: int, **fields) -> Shapes:
    """Those of NCSN++, for images of `size` pixels a side and the fields of our network.

    With `early` those of the first version, in which all changes of size had a number.
    """
    return {
        f'all_modules.{i}.{name}': shape
        for i, module in enumerate(_modules(size, channels, **fields))
        for name, shape in module.items()
    }


def _modules(
    size,
    channels,
    nf,
    ch_mult,
    num_res_blocks,
    attn_resolutions,
    resblock_type='biggan',
    embedding_type='positional',
    conditional=True,
    resamp_with_conv=True,
    fir=False,
    progressive='none',
    progressive_input='none',
    progressive_combine='sum',
    early=False,
) -> Iterator[Shapes]:
    def block(n_in, n_out, resized=False):
        shortcut = _conv(n_in, n_out, 1, 'Conv_2.')
        if resblock_type == 'ddpm':
            shortcut, resized = _nin(n_in, n_out, 'NIN_0.'), False
        return {
            **_norm(n_in, 'GroupNorm_0.'),
            **_conv(n_in, n_out, 3, 'Conv_0.'),
            **_linear(4 * nf, n_out, 'Dense_0.'),
            **_norm(n_out, 'GroupNorm_1.'),
            **_conv(n_out, n_out, 3, 'Conv_1.'),
            **(shortcut if resized or n_in != n_out else {}),
        }

    def resize(n_in, n_out, with_conv):
        return _conv(n_in, n_out, 3, 'Conv2d_0.' if fir else 'Conv_0.') if with_conv else {}

    def change_size(n):
        return block(n, n, True) if resblock_type == 'biggan' else resize(n, n, resamp_with_conv)

    if embedding_type == 'fourier':
        yield {'W': (nf,)}
    if conditional:
        yield _linear(2 * nf if embedding_type == 'fourier' else nf, 4 * nf)
        yield _linear(4 * nf, 4 * nf)

    yield _conv(channels, nf)
    width, image, skips = nf, channels, [nf]
    for level, multiple in enumerate(ch_mult):
        for _ in range(num_res_blocks):
            yield block(width, nf * multiple)
            width = nf * multiple
            if size >> level in attn_resolutions:
                yield _attention(width)
            skips.append(width)
        if level < len(ch_mult) - 1:
            yield change_size(width)
            if progressive_input == 'input_skip':
                if early:
                    yield {}
                yield _conv(image, width, 1, 'Conv.')
                width *= 2 if progressive_combine == 'cat' else 1
            elif progressive_input == 'residual':
                yield resize(image, width, True)
                image = width
            skips.append(width)

    yield block(width, width)
    yield _attention(width)
    yield block(width, width)

    coarsest, pyramid = len(ch_mult) - 1, None
    for level, multiple in reversed(list(enumerate(ch_mult))):
        for _ in range(num_res_blocks + 1):
            yield block(width + skips.pop(), nf * multiple)
            width = nf * multiple
        if size >> level in attn_resolutions:
            yield _attention(width)
        if progressive == 'output_skip':
            if early and level < coarsest:
                yield {}
            yield _norm(width)
            yield _conv(width, channels)
        elif progressive == 'residual':
            if level == coarsest:
                yield _norm(width)
                yield _conv(width, width)
            else:
                yield resize(pyramid, width, True)
            pyramid = width
        if level > 0:
            yield change_size(width)
    if progressive != 'output_skip':
        yield _norm(width)
        yield _conv(width, channels)


def _conv(n_in, n_out, size=3, prefix=''):
    return {f'{prefix}weight': (n_out, n_in, size, size), f'{prefix}bias': (n_out,)}


def _linear(n_in, n_out, prefix=''):
    return {f'{prefix}weight': (n_out, n_in), f'{prefix}bias': (n_out,)}


def _nin(n_in, n_out, prefix):
    return {f'{prefix}W': (n_in, n_out), f'{prefix}b': (n_out,)}


def _norm(n, prefix=''):
    return {f'{prefix}weight': (n,), f'{prefix}bias': (n,)}


def _attention(n):
    projections = [_nin(n, n, f'NIN_{i}.') for i in range(4)]
    return {k: v for part in (_norm(n, 'GroupNorm_0.'), *projections) for k, v in part.items()}

"""EDM's networks (Karras et al. 2022): the names and shapes of their states, and what ADM computes,
in float64.

Written from the constructors and the equations; not from our networks, which are checked by it. The
outputs of `adm` were compared once with those recorded of EDM's own code.
"""

import numpy as np

State = dict[str, tuple[int, ...]]

TAPS = (1, 1)


# Names and shapes


def song(
    img_resolution,
    img_channels,
    model_channels,
    channel_mult,
    num_blocks,
    attn_resolutions,
    label_dim=0,
    channel_mult_emb=4,
    embedding_type='positional',
    encoder_type='standard',
    decoder_type='standard',
    resample_filter=TAPS,
    **_,
) -> State:
    """The state of SongUNet within a preconditioning."""
    noise = model_channels * (2 if embedding_type == 'fourier' else 1)
    emb, taps, found = channel_mult_emb * model_channels, len(resample_filter), {}

    def block(name, n_in, n_out, resized=False, attends=False):
        found.update(_block(name, n_in, n_out, emb, resized, attends, 1, True, taps))

    if embedding_type == 'fourier':
        found['map_noise.freqs'] = (noise // 2,)
    if label_dim:
        found |= _linear('map_label', label_dim, noise)
    found |= _linear('map_layer0', noise, emb) | _linear('map_layer1', emb, emb)

    sides = [img_resolution >> i for i in range(len(channel_mult))]
    width, aux, skips = model_channels, img_channels, [model_channels]
    found |= _conv(f'enc.{sides[0]}x{sides[0]}_conv', img_channels, width)
    for level, (side, mult) in enumerate(zip(sides, channel_mult, strict=True)):
        name = f'enc.{side}x{side}'
        if level:
            block(f'{name}_down', width, width, resized=True)
            if encoder_type == 'skip':
                found |= _filter(f'{name}_aux_down', taps)
                found |= _conv(f'{name}_aux_skip', aux, width, 1)
            elif encoder_type == 'residual':
                found |= _conv(f'{name}_aux_residual', aux, width)
                found |= _filter(f'{name}_aux_residual', taps)
                aux = width
            skips.append(width)
        for i in range(num_blocks):
            block(f'{name}_block{i}', width, model_channels * mult, False, side in attn_resolutions)
            width = model_channels * mult
            skips.append(width)
    for level, side in reversed(list(enumerate(sides))):
        name = f'dec.{side}x{side}'
        if side == sides[-1]:
            block(f'{name}_in0', width, width, attends=True)
            block(f'{name}_in1', width, width)
        else:
            block(f'{name}_up', width, width, resized=True)
        for i in range(num_blocks + 1):
            n_out = model_channels * channel_mult[level]
            attends = i == num_blocks and side in attn_resolutions
            block(f'{name}_block{i}', width + skips.pop(), n_out, False, attends)
            width = n_out
        if decoder_type == 'skip' or level == 0:
            if decoder_type == 'skip' and side != sides[-1]:
                found |= _filter(f'{name}_aux_up', taps)
            found |= _norm(f'{name}_aux_norm', width) | _conv(
                f'{name}_aux_conv', width, img_channels
            )
    return {f'model.{name}': shape for name, shape in found.items()}


def dhariwal(
    img_resolution,
    img_channels,
    model_channels,
    channel_mult,
    num_blocks,
    attn_resolutions,
    label_dim=0,
    channel_mult_emb=4,
    **_,
) -> State:
    """The state of DhariwalUNet within a preconditioning."""
    emb, found = channel_mult_emb * model_channels, {}

    def block(name, n_in, n_out, resized=False, attends=False):
        heads = n_out // 64 if attends else 0
        found.update(_block(name, n_in, n_out, emb, resized, heads > 0, 2, False, 2))

    found |= _linear('map_layer0', model_channels, emb) | _linear('map_layer1', emb, emb)
    if label_dim:
        found['map_label.weight'] = (emb, label_dim)
    sides = [img_resolution >> i for i in range(len(channel_mult))]
    width = model_channels * channel_mult[0]
    skips = [width]
    found |= _conv(f'enc.{sides[0]}x{sides[0]}_conv', img_channels, width)
    for level, side in enumerate(sides):
        name, attends = f'enc.{side}x{side}', side in attn_resolutions
        if level:
            block(f'{name}_down', width, width, resized=True)
            skips.append(width)
        for i in range(num_blocks):
            n_out = model_channels * channel_mult[level]
            block(f'{name}_block{i}', width, n_out, False, attends)
            width = n_out
            skips.append(width)
    for level, side in reversed(list(enumerate(sides))):
        name, attends = f'dec.{side}x{side}', side in attn_resolutions
        if side == sides[-1]:
            block(f'{name}_in0', width, width, attends=True)
            block(f'{name}_in1', width, width)
        else:
            block(f'{name}_up', width, width, resized=True)
        for i in range(num_blocks + 1):
            n_out = model_channels * channel_mult[level]
            block(f'{name}_block{i}', width + skips.pop(), n_out, False, attends)
            width = n_out
    found |= _norm('out_norm', width) | _conv('out_conv', width, img_channels)
    return {f'model.{name}': shape for name, shape in found.items()}


def _block(name, n_in, n_out, emb, resized, attends, affine, project, taps):
    found = _norm(f'{name}.norm0', n_in) | _conv(f'{name}.conv0', n_in, n_out)
    found |= _linear(f'{name}.affine', emb, affine * n_out) | _norm(f'{name}.norm1', n_out)
    found |= _conv(f'{name}.conv1', n_out, n_out)
    if n_in != n_out or (resized and project):
        found |= _conv(f'{name}.skip', n_in, n_out, 1)
    if resized:
        found |= _filter(f'{name}.conv0', taps) | _filter(f'{name}.skip', taps)
    if attends:
        found |= _norm(f'{name}.norm2', n_out) | _conv(f'{name}.qkv', n_out, 3 * n_out, 1)
        found |= _conv(f'{name}.proj', n_out, n_out, 1)
    return found


def _conv(name, n_in, n_out, size=3):
    return {f'{name}.weight': (n_out, n_in, size, size), f'{name}.bias': (n_out,)}


def _linear(name, n_in, n_out):
    return {f'{name}.weight': (n_out, n_in), f'{name}.bias': (n_out,)}


def _norm(name, n):
    return {f'{name}.weight': (n,), f'{name}.bias': (n,)}


def _filter(name, taps):
    return {f'{name}.resample_filter': (1, 1, taps, taps)}


def random_state(shapes: State, resample_filter=TAPS) -> dict[str, np.ndarray]:
    """Random parameters, and the filters."""
    rng = np.random.default_rng(0)
    kernel = np.outer(resample_filter, resample_filter) / sum(resample_filter) ** 2
    return {
        name: np.float32(
            kernel[None, None] if 'resample_filter' in name else rng.normal(0, 0.2, shape)
        )
        for name, shape in shapes.items()
    }


# What ADM computes; images are NCHW


def adm(state, arguments, x, noise_labels, classes=None):
    """DhariwalUNet of these arguments and this state; classes are indices."""
    state = {name.removeprefix('model.'): np.float64(value) for name, value in state.items()}

    def linear(name, x):
        return x @ state[f'{name}.weight'].T + state.get(f'{name}.bias', 0.0)

    def conv(name, x):
        return _convolve(x, state[f'{name}.weight']) + state[f'{name}.bias'][:, None, None]

    def norm(name, x):
        n, c, h, w = x.shape
        groups = x.reshape(n, min(32, c // 4), -1)
        centred = groups - groups.mean(2, keepdims=True)
        y = (centred / np.sqrt((centred**2).mean(2, keepdims=True) + 1e-5)).reshape(x.shape)
        weight, bias = (state[f'{name}.{leaf}'][:, None, None] for leaf in ('weight', 'bias'))
        return y * weight + bias

    def resized(x, how):
        n, c, h, w = x.shape
        if how == 'up':
            return x.repeat(2, axis=2).repeat(2, axis=3)
        return x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5)) if how == 'down' else x

    def block(name, x, how=None):
        h = conv(f'{name}.conv0', resized(_silu(norm(f'{name}.norm0', x)), how))
        scale, shift = np.split(linear(f'{name}.affine', emb)[:, :, None, None], 2, axis=1)
        h = conv(f'{name}.conv1', _silu(norm(f'{name}.norm1', h) * (1 + scale) + shift))
        x = resized(x, how)
        x = h + (conv(f'{name}.skip', x) if f'{name}.skip.weight' in state else x)
        return attention(name, x) if f'{name}.qkv.weight' in state else x

    def attention(name, x):
        n, c, h, w = x.shape
        heads = c // 64
        qkv = conv(f'{name}.qkv', norm(f'{name}.norm2', x))
        q, k, v = np.moveaxis(qkv.reshape(n, heads, c // heads, 3, h * w), 3, 0)
        logits = np.einsum('nhcq,nhck->nhqk', q, k) / np.sqrt(c // heads)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attended = np.einsum('nhqk,nhck->nhcq', weights, v).reshape(x.shape)
        return x + conv(f'{name}.proj', attended)

    half = arguments['model_channels'] // 2
    angles = np.outer(noise_labels, 1e-4 ** (np.arange(half) / half))
    emb = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    emb = linear('map_layer1', _silu(linear('map_layer0', emb)))
    if classes is not None:
        emb = emb + state['map_label.weight'].T[np.asarray(classes)]
    emb = _silu(emb)

    sides = [arguments['img_resolution'] >> i for i in range(len(arguments['channel_mult']))]
    x = conv(f'enc.{sides[0]}x{sides[0]}_conv', x)
    skips = [x]
    for side in sides:
        if side != sides[0]:
            x = block(f'enc.{side}x{side}_down', x, 'down')
            skips.append(x)
        for i in range(arguments['num_blocks']):
            x = block(f'enc.{side}x{side}_block{i}', x)
            skips.append(x)
    x = block(f'dec.{sides[-1]}x{sides[-1]}_in0', x)
    x = block(f'dec.{sides[-1]}x{sides[-1]}_in1', x)
    for side in reversed(sides):
        if side != sides[-1]:
            x = block(f'dec.{side}x{side}_up', x, 'up')
        for i in range(arguments['num_blocks'] + 1):
            x = block(f'dec.{side}x{side}_block{i}', np.concatenate([x, skips.pop()], 1))
    return conv('out_conv', _silu(norm('out_norm', x)))


def _silu(x):
    return x / (1 + np.exp(-x))


def _convolve(x, weight):
    rows, columns = weight.shape[2:]
    pads = [(0, 0), (0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2)]
    padded, (h, w) = np.pad(x, pads), x.shape[2:]
    return sum(
        np.einsum('nchw,oc->nohw', padded[:, :, i : i + h, j : j + w], weight[:, :, i, j])
        for i, j in np.ndindex(rows, columns)
    )

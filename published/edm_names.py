"""The parameters of EDM's networks under our names, and with our axes, and back.

EDM's names say at which size of image a module works ('enc.32x32_block0.conv0.weight'); ours are
counted in the order of the forward pass, which is EDM's too. Its blocks have the attention inside.

What EDM feeds to `map_augment` is zero when it draws images, and that layer has no bias: it is left
out.
"""

import collections
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

Flat = dict[str, np.ndarray]

BLOCK = {
    **{'norm0': 'GroupNorm_0', 'conv0': 'Conv_0', 'affine': 'Dense_0', 'norm1': 'GroupNorm_1'},
    **{'conv1': 'Conv_1', 'skip': 'Conv_2'},
}
# Of one convolution we make three layers in NCSN++.
QKV = ('NIN_0', 'NIN_1', 'NIN_2')
ATTENTION = {
    'ncsnpp': {'norm2': ('GroupNorm_0',), 'qkv': QKV, 'proj': ('NIN_3',)},
    'adm': {'norm2': ('GroupNorm_0',), 'qkv': ('Conv_0',), 'proj': ('Conv_1',)},
}
# Our blocks and attentions.
PARTS = {
    'ncsnpp': ('ResnetBlockBigGANpp', 'AttnBlockpp'),
    'adm': ('ResnetBlockADM', 'AttnBlockADM'),
}
# What a layer calls EDM's `weight` and `bias`: other names than these.
LEAVES = {'GroupNorm': ('scale', 'bias'), 'NIN': ('W', 'b'), 'Conv2d': ('weight', 'bias')}
USUAL = ('kernel', 'bias')
FILTER = 'resample_filter'  # a buffer of modules that change the size
UNUSED = ('map_augment.weight',)


class Layer(NamedTuple):
    """A layer of EDM's network, and what it is with us: one, or several for one."""

    theirs: str
    ours: tuple[str, ...]


def renamed(state: Flat, fields: Mapping[str, Any]) -> Flat:
    """Our parameters, by EDM's state of a network of these fields.

    What has no place in such a network keeps its name.
    """
    left = {k.removeprefix('model.'): v for k, v in state.items() if _is_parameter(k)}
    found = {}
    for layer in layers(fields):
        for theirs, ours in _parameters(layer):
            if theirs in left:
                found |= _to_ours(left.pop(theirs), ours)
    return found | left


def exported(params: Flat, fields: Mapping[str, Any]) -> Flat:
    """EDM's state, buffers included, by our parameters of a network of these fields."""
    found = {}
    for layer in layers(fields):
        for theirs, ours in _parameters(layer):
            if ours[0] in params:
                found[f'model.{theirs}'] = _to_theirs([params[name] for name in ours], ours[0])
    taps = fields['model.fir_kernel'] if fields.get('model.fir') else (1, 1)
    kernel = np.outer(taps, taps)[None, None] / sum(taps) ** 2
    for module in _resampling(fields):
        found[f'model.{module}.{FILTER}'] = kernel.astype(np.float32)
    return found


# Names


def layers(fields: Mapping[str, Any]) -> Iterator[Layer]:
    """All layers that a network of these fields may have, in the order of the forward pass."""
    name, counts = fields['model.name'], collections.Counter()
    block, attention = PARTS[name]
    num_blocks, sides = fields['model.num_res_blocks'], _sides(fields)

    def part(kind):
        counts[kind] += 1
        return f'{kind}_{counts[kind] - 1}'

    def block_layers(theirs, attends=False):
        path = part(block)
        yield from (Layer(f'{theirs}.{a}', (f'{path}/{b}',)) for a, b in BLOCK.items())
        if attends:
            path = part(attention)
            for a, inner in ATTENTION[name].items():
                yield Layer(f'{theirs}.{a}', tuple(f'{path}/{b}' for b in inner))

    yield Layer('map_noise', ('GaussianFourierProjection_0',))
    yield Layer('map_label', ('class_embedding',))
    yield from (Layer(f'map_layer{i}', (f'Dense_{i}',)) for i in (0, 1))

    yield Layer(f'enc.{sides[0]}_conv', (part('Conv'),))
    for side in sides:
        if side != sides[0]:
            yield from block_layers(f'enc.{side}_down')
            yield Layer(f'enc.{side}_aux_skip', (f'{part("Combine")}/Conv_0',))
            yield Layer(f'enc.{side}_aux_residual', (f'{part("Downsample")}/Conv2d_0',))
        for i in range(num_blocks):
            yield from block_layers(f'enc.{side}_block{i}', attends=_attends(side, fields))

    yield from block_layers(f'dec.{sides[-1]}_in0', attends=True)
    yield from block_layers(f'dec.{sides[-1]}_in1')
    for side in reversed(sides):
        if side != sides[-1]:
            yield from block_layers(f'dec.{side}_up')
        for i in range(num_blocks + 1):
            attends = _attends(side, fields) and (name == 'adm' or i == num_blocks)
            yield from block_layers(f'dec.{side}_block{i}', attends)
        if side == sides[0] or fields.get('model.progressive') == 'output_skip':
            head = 'out' if name == 'adm' else f'dec.{side}_aux'
            yield Layer(f'{head}_norm', (part('GroupNorm'),))
            yield Layer(f'{head}_conv', (part('Conv'),))


def _resampling(fields):
    """The modules that change the size, each of which has a filter."""
    fine, coarse = _sides(fields)[:-1], _sides(fields)[1:]
    for blocks in ([f'enc.{side}_down' for side in coarse], [f'dec.{side}_up' for side in fine]):
        yield from (f'{block}.{module}' for block in blocks for module in ('conv0', 'skip'))
    into = {'input_skip': 'down', 'residual': 'residual'}.get(fields.get('model.progressive_input'))
    if into:
        yield from (f'enc.{side}_aux_{into}' for side in coarse)
    if fields.get('model.progressive') == 'output_skip':
        yield from (f'dec.{side}_aux_up' for side in fine)


def _sides(fields):
    finest = fields['data.image_size'][0]
    return [f'{finest >> i}x{finest >> i}' for i in range(len(fields['model.ch_mult']))]


def _attends(side, fields):
    return int(side.split('x')[0]) in fields['model.attn_resolutions']


def _is_parameter(name):
    return not name.endswith((FILTER, *UNUSED))


def _parameters(layer):
    """EDM's name of each parameter of a layer, and ours."""
    kind = layer.ours[0].split('/')[-1].rsplit('_', 1)[0]
    if kind == 'GaussianFourierProjection':
        return [(f'{layer.theirs}.freqs', (f'{layer.ours[0]}/W',))]
    leaves = zip(('weight', 'bias'), LEAVES.get(kind, USUAL), strict=True)
    return [
        (f'{layer.theirs}.{theirs}', tuple(f'{path}/{ours}' for path in layer.ours))
        for theirs, ours in leaves
    ]


# Arrays


def _to_ours(value, names):
    """One array of EDM's under our names: of several of them, features are taken in turn."""
    return {name: _turned(value[i :: len(names)], name) for i, name in enumerate(names)}


def _turned(value, name):
    if value.ndim == 4 and name.endswith('/W') and value.shape[2:] == (1, 1):
        return value[:, :, 0, 0].T
    return value.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[value.ndim])


def _to_theirs(values, name):
    turned = [_turned_back(np.asarray(value), name) for value in values]
    return np.ascontiguousarray(np.stack(turned, 1).reshape(-1, *turned[0].shape[1:]))


def _turned_back(value, name):
    turned = value.transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim])
    return turned[:, :, None, None] if turned.ndim == 2 and name.endswith('/W') else turned

"""Parameters of score_sde_pytorch's networks under the names, and with the axes, of the flax ones.

The U-Nets (NCSN++, DDPM++, DDPM) keep their modules in one list, `all_modules`, in the order in
which the forward pass calls them, and inside modules the names are those of flax. Modules without
parameters are no guide: changes of size of the features have a number, those of the image pyramids
(input_skip, output_skip) had one in the first version of that code, and none later. So the k-th
number that has parameters is the k-th part of our network that has any, and names and shapes show
whether that fits. The RefineNets (NCSNv2, NCSN) have names of their own.
"""

import collections
import re

import numpy as np

Flat = dict[str, np.ndarray]

# What DataParallel puts before names, once for each time, and torch.compile before those of what it
# has compiled: the network, or a part.
WRAPPERS = re.compile(r'^(?:module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.')
BUFFERS = ('sigmas',)  # saved, and computed from the config by us
INNER_NAMES = {'Conv': 'Conv_0'}  # `Combine` has the one submodule that PyTorch does not number

# Of our parts, the first layer of the embedding of noise levels, and that of classes.
EMBEDDING, CLASSES = 'Dense_0', 'class_embedding'

# What a `weight` with so many axes is to flax, and its axes there: OIHW to HWIO, matrices turned.
WEIGHTS = {1: 'scale', 2: 'kernel', 4: 'kernel'}
AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}

# The stages of RefineNets, in the order of the forward pass; not every network has all.
RESIDUAL = [f'res{stage}.{i}' for stage in (1, 2, 3, 31, 4, 5) for i in (0, 1)]
REFINE = [f'refine{stage}' for stage in (1, 2, 31, 3, 4, 5)]
NORM = ['normalizer']


def parameters(state: Flat) -> Flat:
    """The parameters in a state, in its order: names without what wrappers add, and no buffers.

    Raises ValueError for two that have one name without it.
    """
    names = {name: WRAPPERS.sub('', name) for name in state}
    counts = collections.Counter(names.values())
    if twice := next((name for name in names if counts[names[name]] > 1), None):
        raise ValueError(f'{twice}: {names[twice]} is there twice')
    return {ours: state[name] for name, ours in names.items() if ours not in BUFFERS}


def trained(model: Flat) -> list[str]:
    """The names of the trained parameters: all but the frequencies of the noise embedding.

    Those are the only `W` of a part itself; parts with projections have `all_modules.N.NIN_0.W`.
    """
    return [name for name in model if not re.fullmatch(r'all_modules\.\d+\.W', name)]


def renamed(model: Flat, parts: list[str]) -> Flat:
    """The parameters of a network whose parts with parameters, in the order of its calls, are
    `parts`.

    What has no place in such a network keeps its name, and is not lost.
    """
    if any(name.startswith('all_modules.') for name in model):
        heads = _unet_heads(model, parts)
        seen = {name: value for name, value in model.items() if not _is_unseen(name, parts)}
        return dict(_in_unet(name, np.asarray(value), heads) for name, value in seen.items())
    heads = _refinenet_heads(model, parts)
    return dict(_in_refinenet(name, np.asarray(value), heads) for name, value in model.items())


def _unet_heads(model, parts):
    """Our part for each number in a U-Net's list that has parameters."""
    numbers = {int(name.split('.')[1]) for name in model if re.match(r'all_modules\.\d+\.', name)}
    # PyTorch's networks know no classes.
    numbered = [part for part in parts if part != CLASSES]
    return {f'all_modules.{i}': part for i, part in zip(sorted(numbers), numbered, strict=False)}


def _is_unseen(name, parts):
    """Whether a parameter is that of a block for the embedding of the noise level, in a network
    that has no such embedding: PyTorch makes it all the same.
    """
    return EMBEDDING not in parts and re.fullmatch(r'all_modules\.\d+\.Dense_0\.\w+', name)


def _in_unet(name, value, heads):
    *modules, leaf = name.split('.')
    head = '.'.join(modules[:2])
    if head not in heads:
        return name, value
    owners = [heads[head], *(INNER_NAMES.get(module, module) for module in modules[2:])]
    if leaf == 'weight':
        leaf = 'weight' if owners[-1].startswith('Conv2d_') else WEIGHTS[value.ndim]
        value = value.transpose(AXES[value.ndim])
    return '/'.join([*owners, leaf]), value


def _refinenet_heads(model, parts):
    """Our part for each of PyTorch's."""
    heads = {'begin_conv': 'Conv_0', 'end_conv': 'Conv_1'}
    for theirs, kind in ((RESIDUAL, 'ResidualBlock'), (REFINE, 'RefineBlock'), (NORM, 'Norm')):
        present = [head for head in theirs if any(k.startswith(f'{head}.') for k in model)]
        heads |= dict(zip(present, [part for part in parts if kind in part], strict=False))
    return heads


def _in_refinenet(name, value, heads):
    head, inner, leaf = re.fullmatch(r'(res\d+\.\d|\w+)\.?(.*?)\.?(\w*)', name).groups()
    # Units of the output are counted after those of the inputs: one input, or two.
    inner = inner.replace('output_convs', f'adapt_convs.{1 if head == "refine1" else 2}')
    inner, embedded = inner.removesuffix('.embed'), inner.endswith('embed')
    matches = [(re.fullmatch(pattern, inner), path) for pattern, path in REFINENET.items()]
    paths = [path(match) for match, path in matches if match]
    if head not in heads or not paths:
        return name, value
    path = paths[0].replace('Norm', heads.get('normalizer', 'Norm_0').removesuffix('_0'))
    if heads[head].startswith('CondRefine'):
        path = f'Cond{path}'
    if embedded:
        leaf = 'Embed_0/embedding'
    elif leaf == 'weight':
        leaf, value = 'kernel', value.transpose(AXES[4])
    return '/'.join(filter(None, [heads[head], path, leaf])), value


# What is where in a part of a RefineNet; Norm stands for its normalisation.
REFINENET = {
    r'(?:embed)?': lambda m: '',
    r'conv([12])': lambda m: f'Conv_{int(m[1]) - 1}',
    r'conv2\.conv(?:\.1)?': lambda m: 'ConvMeanPool_0/Conv_0',
    r'shortcut\.conv(?:\.1)?': lambda m: 'ConvMeanPool_1/Conv_0',
    r'shortcut': lambda m: 'Conv_2',
    r'normalize([12])': lambda m: f'Norm_{int(m[1]) - 1}',
    r'adapt_convs\.(\d)\.(\d)_(\d)_(conv|norm)': lambda m: (
        f'RCUBlock_{m[1]}/{m[4].title()}_{2 * int(m[2]) + int(m[3]) - 3}'
    ),
    r'(msf|crp)\.(conv|norm)s\.(\d)': lambda m: f'{m[1].upper()}Block_0/{m[2].title()}_{m[3]}',
}

"""Published checkpoints: their formats, their names, and how both meet the networks of models/.

    flax msgpack        checkpoint_N of score_sde: State{step, optimizer{target, state}, params_ema}
                        (of its classifier, only the parameters)
    PyTorch, either way checkpoint_N.pth of score_sde_pytorch: {model, ema, optimizer, step}
    pickle              a network of EDM, whose parameters are averages
    .npz, .safetensors  what this project writes: step, params/<name>, params_ema/<name>
    .edm.safetensors    the state of a network of EDM, with its class and arguments as metadata

Networks name their parameters as the published flax modules do, so everything here is a flat
dictionary from such a name ('Conv_0/kernel') to an array; `torch_names` renames PyTorch's, and
`edm_names` EDM's.
No file is trusted: none of the readers executes what it reads.
"""

import json
import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import safetensors
import safetensors.numpy
from flax import serialization
from flax.traverse_util import flatten_dict, unflatten_dict

from choices import InputError, choose
from published import edm_names, edm_networks, edm_pickle, torch_legacy, torch_names, torch_zip
from storage import files

Params = Any
Flat = dict[str, np.ndarray]

NAMED = 3  # parameters that a message names before it counts the rest


class Outline(NamedTuple):
    """What a network's parameters are called."""

    shapes: Params  # abstract parameters
    parts: list[str]  # the network's own modules with parameters, in the order of its calls


class Moments(NamedTuple):
    """The state of Adam: its updates, and its averages of gradients and of their squares."""

    count: int
    mean: Flat
    square: Flat


class Checkpoint(NamedTuple):
    """What is in a file, with our names; `moments` is None if the optimiser is not in it.

    `fields` are what a config has to have, by dotted names, as far as the file says so.
    """

    step: int
    params: Flat
    ema_params: Flat
    moments: Moments | None = None
    fields: Mapping[str, Any] = MappingProxyType({})


# Networks


def outline(init: Callable[[jax.Array], Params]) -> Outline:
    """The outline of the network that `init(key)` makes parameters for; nothing is computed."""
    parts: dict[str, None] = {}

    def note(call, args, kwargs, context):
        if context.method_name == '__call__' and len(context.module.path) == 1:
            parts[context.module.path[0]] = None
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes = jax.eval_shape(init, jax.random.key(0))
    return Outline(shapes, [part for part in parts if part in shapes])


def fit(found: Flat, network: Outline, source: str) -> Params:
    """`found` as the parameters of a network; raises InputError if they are not, or not finite.

    The message names the first misfits, in the order of the forward pass. Flax gave the scales and
    biases of GroupNorm the shape (1, 1, 1, channels) once, and (channels,) later; both fit.
    """
    expected = flatten_dict(network.shapes, sep='/')
    order = {part: i for i, part in enumerate(network.parts)}
    named = sorted(expected, key=lambda name: order.get(name.split('/')[0], len(order)))
    differing = [
        f'{name} is {found[name].shape}, and the network has {expected[name].shape}'
        for name in named
        if name in found and not _fits(found[name].shape, expected[name].shape)
    ]
    problems = [
        *_list('', differing),
        *_list('missing: ', [name for name in named if name not in found]),
        *_list('unknown to the network: ', [name for name in found if name not in expected]),
        *_list('no floating-point numbers: ', [k for k, v in found.items() if not _is_real(v)]),
    ]
    if problems:
        raise InputError(f'{source} does not fit the config: {"; ".join(problems)}')
    with np.errstate(over='ignore'):  # Told below.
        arrays = {k: found[k].reshape(a.shape).astype(a.dtype) for k, a in expected.items()}
    broken = next((name for name in named if not np.isfinite(arrays[name]).all()), None)
    if broken:
        raise InputError(f'{source}: {broken} has numbers that are not finite')
    return unflatten_dict(arrays, sep='/')


def _fits(found, expected):
    def core(shape):
        return shape[3:] if shape[:3] == (1, 1, 1) and len(shape) == 4 else shape

    return found == expected or core(found) == core(expected)


def _is_real(value):
    return jnp.issubdtype(value.dtype, jnp.floating)


def _list(what, items):
    """The first items, and how many there are besides, as one text; none if there are none."""
    if not items:
        return []
    rest = f' and {len(items) - NAMED} more' if len(items) > NAMED else ''
    return [f'{what}{", ".join(items[:NAMED])}{rest}']


# Files


def read(path: pathlib.Path, parts: list[str]) -> Checkpoint:
    """The checkpoint in a file of any of the formats, which is told by its content.

    `parts` are those of the network's outline, whose order PyTorch's numbers follow. Raises
    InputError if the file cannot be read.
    """
    if not path.is_file():
        raise InputError(f'--checkpoint: {path}: there is no such file')
    with path.open('rb') as file:
        head = file.read(16)
    torch_zip.check_whole(path)
    if torch_zip.is_torch_zip(path):
        return _from_torch(torch_zip.load(path), parts, path)
    if head.startswith(b'PK'):
        return _from_arrays(_load_npz(path), path)
    if path.suffix == '.safetensors':
        return _from_safetensors(path)
    if torch_legacy.is_torch_legacy(path):
        return _from_torch(torch_legacy.load(path), parts, path)
    if edm_pickle.is_pickle(path):
        return _from_edm(edm_pickle.load(path), path)
    return _from_flax(_load_msgpack(path), path)


def write(
    path: pathlib.Path,
    step: int,
    params: Params,
    ema_params: Params,
    values: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Writes parameters and averaged ones to a file, as its name asks for, with published names.

    `values` are the fields of the config, by dotted names, which EDM's names depend on. EDM's
    networks have averages alone.
    """
    writer = choose(WRITERS, _suffix(path), '--checkpoint')
    live, average = (
        {name: np.asarray(v) for name, v in flatten_dict(jax.device_get(tree), sep='/').items()}
        for tree in (params, ema_params)
    )
    with files.replacing(path) as draft:
        try:
            writer(draft, step, live, average, values)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error  # As numpy says that the disk is full.


def check_writable(path: pathlib.Path, values: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Raises InputError unless `write` knows the format that a file's name asks for, the format has
    such a network, and the file can be written.
    """
    choose(WRITERS, _suffix(path), '--checkpoint')
    if _suffix(path) == EDM:
        _edm_network(values)
    if path.is_dir():
        raise InputError(f'--checkpoint: {path} is a directory, and a file is needed')
    files.check_directory(path.parent, '--checkpoint')


def content(path: pathlib.Path) -> str:
    """Words for what `write` writes to such a file."""
    if _suffix(path) == EDM:
        return 'the moving average of the parameters, under the names of EDM'
    return 'parameters and their moving average'


EDM = '.edm.safetensors'


def _suffix(path):
    return EDM if path.name.endswith(EDM) else path.suffix


def _arrays(step, params, ema_params):
    """The content of a file of this project."""
    return {
        'step': np.asarray(step, np.int64),
        **{f'params/{name}': value for name, value in params.items()},
        **{f'params_ema/{name}': value for name, value in ema_params.items()},
    }


def _write_npz(path, step, params, ema_params, _):
    np.savez(path, **_arrays(step, params, ema_params))


def _write_safetensors(path, step, params, ema_params, _):
    safetensors.numpy.save_file(_arrays(step, params, ema_params), path)


def _write_edm(path, step, _, ema_params, values):
    kind, arguments = _edm_network(values)
    state = edm_names.exported(ema_params, values)
    metadata = {'class_name': kind, 'arguments': json.dumps(arguments), 'step': str(step)}
    safetensors.numpy.save_file(state, path, metadata)


def _edm_network(values):
    try:
        return edm_networks.arguments(values)
    except InputError as error:
        raise InputError(f'--checkpoint: {EDM} is for networks of EDM: {error}') from error


WRITERS = {'.npz': _write_npz, '.safetensors': _write_safetensors, EDM: _write_edm}


def _load_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except torch_zip.BROKEN as error:
        raise InputError(f'{path}: not a readable .npz file: {error}') from error


def _from_safetensors(path: pathlib.Path) -> Checkpoint:
    """Of this project, or, with the class of a network as metadata, of EDM."""
    try:
        with safetensors.safe_open(path, 'numpy') as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f'{path}: not a readable .safetensors file: {error}') from error
    if 'class_name' not in metadata:
        return _from_arrays(arrays, path)
    try:
        arguments = json.loads(metadata['arguments'])
        network = edm_pickle.Network(metadata['class_name'], arguments, arrays)
        return _from_edm(network, path, _count(metadata['step']))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise _lacks(path, error) from error


def _load_msgpack(path):
    try:
        found = serialization.msgpack_restore(path.read_bytes())
    except (msgpack.exceptions.UnpackException, *torch_zip.BROKEN) as error:
        raise InputError(
            f'{path}: neither a flax checkpoint (msgpack) nor one of PyTorch (zip): {error}'
        ) from error
    return found


# Contents


def _from_arrays(arrays: Flat, path: pathlib.Path) -> Checkpoint:
    def below(prefix):
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    try:
        return Checkpoint(_count(arrays['step']), below('params/'), below('params_ema/'))
    except (KeyError, TypeError, ValueError) as error:
        raise _lacks(path, error) from error


def _from_flax(state: dict, path: pathlib.Path) -> Checkpoint:
    try:
        if state and not state.keys() & {'step', 'optimizer', 'params_ema'}:
            # The published classifier is its parameters alone.
            params = _flatten(state)
            return Checkpoint(0, params, params)
        params = _flatten(state['optimizer']['target'])
        return Checkpoint(
            step=_count(state['step']),
            params=params,
            ema_params=_flatten(state['params_ema']),
            moments=_flax_moments(state['optimizer'].get('state'), params),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _lacks(path, error) from error


def _flax_moments(state, params):
    """None if the optimiser was not Adam, or has been taken out of the file."""
    if not state:
        return None
    averages = _flatten(state['param_states'])
    if averages.keys() != {f'{name}/{kind}' for name in params for kind in FLAX_ADAM}:
        return None
    mean, square = ({name: averages[f'{name}/{kind}'] for name in params} for kind in FLAX_ADAM)
    return Moments(_count(state['step']), mean, square)


FLAX_ADAM = ('grad_ema', 'grad_sq_ema')


def _flatten(tree):
    if not isinstance(tree, dict):
        raise TypeError(f'{type(tree).__name__} in place of parameters')
    return {name: np.asarray(value) for name, value in flatten_dict(tree, sep='/').items()}


def _from_torch(saved: dict, parts: list[str], path: pathlib.Path) -> Checkpoint:
    try:
        model = torch_names.parameters(saved['model'])
        averages = _torch_averages(saved['ema']['shadow_params'], model)
        return Checkpoint(
            step=_count(saved['step']),
            params=torch_names.renamed(model, parts),
            # What is not trained is not averaged.
            ema_params=torch_names.renamed(model | averages, parts),
            moments=_torch_moments(saved.get('optimizer'), model, parts),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _lacks(path, error) from error


def _torch_averages(shadow, model):
    """The averages of the trained parameters by name; the file has them in a list."""
    trained = torch_names.trained(model)
    if len(shadow) != len(trained):
        raise ValueError(f'ema, which has {len(shadow)} averages of {len(trained)} parameters')
    averages = dict(zip(trained, shadow, strict=True))
    for name, average in averages.items():
        if np.shape(average) != np.shape(model[name]):
            raise ValueError(
                f'ema, whose average of {name} is {np.shape(average)}, not {np.shape(model[name])}'
            )
    return averages


def _torch_moments(optimizer, model, parts):
    """None before the first update, or if the optimiser has been taken out of the file. Parameters
    that are not trained have moments of zero.
    """
    if not optimizer or not optimizer.get('state'):
        return None
    states = optimizer['state']
    names = dict(zip(optimizer['param_groups'][0]['params'], model, strict=True))
    zeros = {name: np.zeros_like(value) for name, value in model.items()}

    def of(key):
        moments = {names[i]: state[key] for i, state in states.items()}
        return torch_names.renamed(zeros | moments, parts)

    count = max(_count(state['step']) for state in states.values())
    return Moments(count, of('exp_avg'), of('exp_avg_sq'))


def _from_edm(network: edm_pickle.Network, path: pathlib.Path, step: int = 0) -> Checkpoint:
    """Of the parameters there are averages alone; a pickle does not say of which step."""
    try:
        fields = edm_networks.fields(network.kind, network.arguments)
        params = edm_names.renamed(network.state, fields)
    except InputError as error:
        raise InputError(f'{path}: {error}') from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _lacks(path, error) from error
    return Checkpoint(step, params, params, fields=fields)


def _count(value):
    """A number of steps that an int32 holds."""
    if not 0 <= int(value) < 2**31:
        raise ValueError(f'step {value}')
    return int(value)


def _lacks(path, error):
    return InputError(f'{path}: not a published checkpoint; reading it failed at {error}')

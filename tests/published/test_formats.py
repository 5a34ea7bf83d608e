"""Published checkpoints: recorded outputs, names in all options, formats, and what is refused."""

import collections
import functools
import itertools
import os
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from flax.traverse_util import flatten_dict, unflatten_dict

import models
from choices import InputError
from experiments import score_model
from published import formats
from tests import published_config
from tests.support import golden, networks, torch_ncsnpp, torch_writer

FLAX, TORCH = (
    golden.DATA / name for name in ('published_flax_checkpoint_12', 'published_ncsnpp_ve.pth')
)


@pytest.fixture(scope='module')
def network():
    return score_model.create(published_config.get_config())


@pytest.fixture(scope='module')
def outline(network):
    return formats.outline(network.init_params)


@pytest.fixture(scope='module')
def output(network, outline):
    """The network's output by the parameters in a file."""
    apply = jax.jit(
        lambda params, *inputs: network.network.apply({'params': params}, *inputs),
        compiler_options={'xla_backend_optimization_level': 0},  # Compiles in a fraction.
    )

    def of(flat, data):
        return apply(formats.fit(flat, outline, 'file'), data['x'], data['labels'])

    return of


def small(fields, name='ncsnpp'):
    """The outline of a network that is traced in less than a second."""
    network = models.create(name, **fields)
    x, labels = jnp.zeros((1, 16, 16, 3)), jnp.ones(1)
    return formats.outline(lambda key: network.init(key, x, labels)['params'])


SMALL = {'nf': 8, 'ch_mult': (1, 2), 'num_res_blocks': 1, 'attn_resolutions': (8,)}


@functools.cache
def outline_of(fields):
    """`small` of hashable fields, once."""
    return small(dict(fields))


def torch_model(fields, shapes_of=torch_ncsnpp.shapes):
    """Random parameters of the PyTorch network, with PyTorch's names."""
    rng = np.random.default_rng(0)
    shapes = shapes_of(16, 3, **fields)
    return collections.OrderedDict(
        (name, rng.standard_normal(shape).astype(np.float32)) for name, shape in shapes.items()
    )


def torch_checkpoint(model, optimizer=None):
    """What score_sde_pytorch saves; the average is twice the parameters."""
    trained = [value for name, value in model.items() if name != 'all_modules.0.W']
    sigmas = {'module.sigmas': np.ones(10, np.float32)}
    return {
        'model': collections.OrderedDict(
            sigmas | {f'module.{name}': value for name, value in model.items()}
        ),
        'ema': {'decay': 0.999, 'num_updates': 3, 'shadow_params': [2 * v for v in trained]},
        'optimizer': optimizer or {'state': {}, 'param_groups': []},
        'step': 7,
    }


# The recorded checkpoints


def test_the_flax_checkpoint_gives_the_recorded_output(outline, output):
    found, data = formats.read(FLAX, outline.parts), golden.load('model_ncsnpp_ve')
    assert found.step == 600_000
    y = output(found.ema_params, data)
    np.testing.assert_allclose(y, data['y'], rtol=golden.RTOL, atol=golden.ATOL)
    assert found.params.keys() == found.ema_params.keys()
    for name, value in found.params.items():
        np.testing.assert_array_equal(value, np.float32(1.01) * found.ema_params[name])
    assert found.moments.count == 600_000
    assert found.moments.mean.keys() == found.moments.square.keys() == found.params.keys()


def test_the_pytorch_checkpoint_gives_the_recorded_outputs(outline, output):
    found, data = formats.read(TORCH, outline.parts), golden.load('published_ncsnpp_ve')
    assert found.step == 1234
    for flat, name in ((found.params, 'y_live'), (found.ema_params, 'y_ema')):
        y = output(flat, data)
        np.testing.assert_allclose(y, data[name], rtol=golden.RTOL, atol=golden.ATOL)


def test_a_pytorch_checkpoint_of_256_pixels_gives_the_recorded_outputs():
    """Of the network with both image pyramids, whose changes of size have no number."""
    data = golden.load('published_torch_church_256')
    network = networks.configured(data['config'])
    x, labels = jnp.asarray(data['x']), jnp.asarray(data['labels'])
    ours = formats.outline(lambda key: network.init(key, x, labels)['params'])
    found = formats.read(golden.DATA / 'published_torch_church_256.pth', ours.parts)
    apply = networks.quick_jit(network.apply)
    for flat, name in ((found.params, 'y_live'), (found.ema_params, 'y_ema')):
        y = apply({'params': formats.fit(flat, ours, 'file')}, x, labels)
        np.testing.assert_allclose(y, data[name], rtol=golden.RTOL, atol=golden.ATOL)


# PyTorch's names


PAIRS = itertools.product(('none', 'output_skip', 'residual'), ('none', 'input_skip', 'residual'))
# In every combination of the pyramids, the other options in turn.
OPTIONS = [
    {
        'progressive': out,
        'progressive_input': into,
        'resblock_type': block,
        'progressive_combine': ('sum', 'cat')[i % 2],
        'fir': i % 3 == 0,
        'resamp_with_conv': i % 4 < 2,
        'conditional': i % 5 > 0,
        'embedding_type': ('positional', 'fourier')[i // 2 % 2],
        'attn_resolutions': ((), (8,), (16, 8))[i % 3],
    }
    for i, ((out, into), block) in enumerate(itertools.product(PAIRS, ('ddpm', 'biggan')))
]


def written_and_read(model, ours, path):
    """The file of such a network as parameters of ours, live ones and averages."""
    torch_writer.write(path, torch_checkpoint(model))
    found = formats.read(path, ours.parts)
    return [formats.fit(flat, ours, 'a.pth') for flat in (found.params, found.ema_params)]


def assert_same_numbers(params, model):
    """Every number is somewhere: axes are turned, and nothing else happens."""
    flat = [
        np.concatenate([np.ravel(v) for v in t]) for t in (jax.tree.leaves(params), model.values())
    ]
    np.testing.assert_array_equal(*map(np.sort, flat))


@pytest.mark.parametrize('early', [False, True], ids=['late', 'early'])
@pytest.mark.parametrize(
    'options', OPTIONS, ids=lambda options: ','.join(map(str, options.values()))
)
def test_modules_are_numbered_as_in_pytorch_for_all_options(options, early, tmp_path):
    """Parameters that nothing looks at, of blocks that see no noise level, are left out."""
    fields = {**SMALL, **options}
    model, ours = torch_model({**fields, 'early': early}), outline_of(tuple(fields.items()))
    params, average = written_and_read(model, ours, tmp_path / 'a.pth')
    seen = {k: v for k, v in model.items() if options['conditional'] or '.Dense_0.' not in k}
    assert_same_numbers(params, seen)
    assert jax.tree.structure(average) == jax.tree.structure(params)


@pytest.mark.parametrize('with_conv', [False, True])
@pytest.mark.parametrize('rows', [(), (8,), (16, 8)])
def test_modules_of_ddpm_are_numbered_as_in_pytorch(with_conv, rows, tmp_path):
    fields = {**SMALL, 'nf': 32, 'attn_resolutions': rows, 'resamp_with_conv': with_conv}
    model = torch_model(fields, torch_ncsnpp.ddpm_shapes)
    params, _ = written_and_read(model, small(fields, 'ddpm'), tmp_path / 'a.pth')
    assert_same_numbers(params, model)


@pytest.mark.parametrize(
    ('theirs', 'ours'),
    [
        ({'resamp_with_conv': True}, {'resamp_with_conv': False}),
        ({'resamp_with_conv': False}, {'resamp_with_conv': True}),
        ({'ch_mult': (1, 1, 2)}, {'ch_mult': (1, 2, 2)}),
        ({'num_res_blocks': 4, 'ch_mult': (1,)}, {'ch_mult': (1, 1, 1), 'attn_resolutions': ()}),
        ({'conditional': True}, {'conditional': False}),
        ({'attn_resolutions': (16,)}, {'attn_resolutions': (8,)}),
        ({'progressive': 'output_skip'}, {}),
        ({'progressive_input': 'input_skip'}, {'progressive_input': 'residual'}),
        ({}, {'num_classes': 10}),
    ],
    ids=str,
)
def test_a_pytorch_file_of_other_options_is_refused(theirs, ours, tmp_path):
    model = torch_model({**SMALL, 'resblock_type': 'ddpm', **theirs})
    outline = small({**SMALL, 'resblock_type': 'ddpm', **ours})
    with pytest.raises(InputError, match=r'a\.pth does not fit the config: '):
        written_and_read(model, outline, tmp_path / 'a.pth')


def swap(shadow):
    shadow[0], shadow[1] = shadow[1], shadow[0]


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (swap, r'ema, whose average of all_modules\.0\.weight is \(32,\), not \(32, 8\)'),
        (list.pop, r'ema, which has \d+ averages of \d+ parameters'),
    ],
)
def test_averages_that_are_not_those_of_the_parameters_are_refused(change, said, tmp_path):
    """They are a list without names."""
    checkpoint = torch_checkpoint(torch_model(SMALL))
    change(checkpoint['ema']['shadow_params'])
    torch_writer.write(tmp_path / 'a.pth', checkpoint)
    with pytest.raises(InputError, match=said):
        formats.read(tmp_path / 'a.pth', small(SMALL).parts)


def test_averages_and_moments_are_in_the_order_of_trained_parameters(tmp_path):
    """Adam counts the frozen frequencies, and has no state for them; the average skips them."""
    fields = {**SMALL, 'embedding_type': 'fourier'}
    model, ours = torch_model(fields), small(fields)
    frozen = 'all_modules.0.W'
    states = {
        i: {'step': 5, 'exp_avg': 3 * value, 'exp_avg_sq': 4 * value}
        for i, (name, value) in enumerate(model.items())
        if name != frozen
    }
    # The warm-up leaves a numpy scalar.
    groups = [{'lr': np.float64(2e-4), 'params': list(range(len(model)))}]
    optimizer = {'state': states, 'param_groups': groups}
    torch_writer.write(tmp_path / 'a.pth', torch_checkpoint(model, optimizer))
    found = formats.read(tmp_path / 'a.pth', ours.parts)
    assert (found.step, found.moments.count) == (7, 5)
    for name, value in found.params.items():
        fixed = name == 'GaussianFourierProjection_0/W'
        np.testing.assert_array_equal(found.ema_params[name], (1 if fixed else 2) * value)
        np.testing.assert_array_equal(found.moments.mean[name], (0 if fixed else 3) * value)
        np.testing.assert_array_equal(found.moments.square[name], (0 if fixed else 4) * value)


# Shapes


def test_both_shapes_of_group_norm_fit(outline):
    found = formats.read(FLAX, outline.parts).params
    assert found['GroupNorm_0/scale'].shape == (1, 1, 1, 8)
    new = {k: v.reshape(-1) if 'GroupNorm' in k else v for k, v in found.items()}
    old_fit, new_fit = (formats.fit(flat, outline, 'file') for flat in (found, new))
    jax.tree.map(np.testing.assert_array_equal, old_fit, new_fit)
    assert old_fit['GroupNorm_0']['scale'].shape == (8,)


def test_a_misfit_names_parameters_and_both_shapes(outline):
    flat = formats.read(FLAX, outline.parts).params
    flat |= {f'Conv_{i}/kernel': np.zeros((3, 3, 1, i)) for i in range(2)}
    flat |= {f'Dense_9/{i}': np.zeros(1) for i in range(5)}
    del flat['Dense_0/bias']
    with pytest.raises(InputError) as error:
        formats.fit(flat, outline, 'params of FILE')
    assert str(error.value) == (
        'params of FILE does not fit the config: '
        'Conv_0/kernel is (3, 3, 1, 0), and the network has (3, 3, 3, 8), '
        'Conv_1/kernel is (3, 3, 1, 1), and the network has (3, 3, 8, 3); '
        'missing: Dense_0/bias; '
        'unknown to the network: Dense_9/0, Dense_9/1, Dense_9/2 and 2 more'
    )


def test_parameters_that_are_no_numbers_are_refused(outline):
    flat = formats.read(FLAX, outline.parts).params
    flat['Conv_0/bias'] = np.array(['a'] * 8)
    with pytest.raises(InputError, match='no floating-point numbers: Conv_0/bias'):
        formats.fit(flat, outline, 'FILE')


# Export


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])
def test_what_is_exported_is_read_again_under_published_names(suffix, outline, tmp_path):
    found, recorded = formats.read(FLAX, outline.parts), golden.load('model_ncsnpp_ve')
    params, ema_params = (
        formats.fit(flat, outline, 'file') for flat in (found.params, found.ema_params)
    )
    path = tmp_path / 'new' / f'file{suffix}'
    formats.write(path, found.step, params, ema_params)
    again = formats.read(path, [])
    assert again.step == found.step
    names = {name.removeprefix('params/') for name in recorded if name.startswith('params/')}
    assert again.params.keys() == again.ema_params.keys() == names
    for name in names:
        np.testing.assert_array_equal(again.ema_params[name], recorded[f'params/{name}'])
        np.testing.assert_array_equal(again.params[name].ravel(), found.params[name].ravel())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"unknown name '\.pt'.*known: \.npz, \.safetensors"):
        formats.write(tmp_path / 'new' / 'a.pt', 1, {}, {})
    assert not (tmp_path / 'new').exists()


# Files that are refused


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('protocol', [0, 2, 4])
@pytest.mark.parametrize('name', ['checkpoint_1', 'checkpoint_1.pth', 'a.npz', 'a.safetensors'])
def test_a_pickle_is_not_executed_whatever_its_name(name, protocol, tmp_path):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Attack(tmp_path / 'made'), protocol))
    with pytest.raises(InputError, match=name):
        formats.read(path, [])
    assert not (tmp_path / 'made').exists()


def test_a_pickle_inside_an_npz_is_not_executed(tmp_path):
    attack = np.array([Attack(tmp_path / 'made')], object)
    np.savez(tmp_path / 'a.npz', step=1, **{'params/a': attack})
    with pytest.raises(InputError, match='not a readable .npz'):
        formats.read(tmp_path / 'a.npz', [])
    assert not (tmp_path / 'made').exists()


def test_a_file_from_before_pytorch_1_6_is_read_too():
    with pytest.raises(InputError, match='not a published checkpoint'):
        formats.read(golden.DATA / 'torch_before_1_6.pth', [])


@pytest.mark.parametrize('length', [0, 10, 1000, 1_000_000])
@pytest.mark.parametrize('path', [FLAX, TORCH], ids=['flax', 'torch'])
def test_a_cut_file_is_refused(path, length, outline, tmp_path):
    (tmp_path / 'cut').write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match='cut: '):
        formats.read(tmp_path / 'cut', outline.parts)


EMPTY = {'target': {}, 'state': {'step': 0, 'param_states': {}}}


@pytest.mark.parametrize(
    'state',
    [
        {},
        [],
        1,
        {'step': 1, 'optimizer': 2},
        {'step': -1, 'optimizer': EMPTY, 'params_ema': {}},
        {'step': 2**40, 'optimizer': EMPTY, 'params_ema': {}},
        {'step': 1, 'optimizer': EMPTY, 'params_ema': 1},
    ],
    ids=str,
)
def test_other_states_are_refused(state, tmp_path):
    (tmp_path / 'flax').write_bytes(serialization.msgpack_serialize(state))
    torch_writer.write(tmp_path / 'torch', state)
    for name in ('flax', 'torch'):
        with pytest.raises(InputError, match='not a published checkpoint'):
            formats.read(tmp_path / name, [])


def test_a_checkpoint_without_adam_starts_with_a_fresh_optimizer(outline, tmp_path):
    state = serialization.msgpack_restore(FLAX.read_bytes())
    momentum = {f'{k}/momentum': v for k, v in flatten_dict(state['params_ema'], sep='/').items()}
    state['optimizer']['state']['param_states'] = unflatten_dict(momentum, sep='/')
    (tmp_path / 'a').write_bytes(serialization.msgpack_serialize(state))
    assert formats.read(tmp_path / 'a', outline.parts).moments is None


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match='--checkpoint: .*: there is no such file'):
        formats.read(tmp_path / 'nothing', [])


# Files from elsewhere that are nearly as published


@pytest.mark.parametrize('share', [0.01, 0.5, 0.99])
@pytest.mark.parametrize(
    ('name', 'said'), [('a.pth', 'a PyTorch zip file'), ('a.npz', 'an .npz file')]
)
def test_a_zip_file_that_is_cut_short_is_called_so(name, said, share, tmp_path):
    path = tmp_path / name
    content = TORCH.read_bytes()
    if name == 'a.npz':
        formats.write(path, 1, {'a': np.ones(1000)}, {'a': np.ones(1000)})
        content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=rf'{name}: {said} that is cut short, after [\d,]+ bytes'):
        formats.read(path, [])


@pytest.mark.parametrize('left', [None, {}, {'state': {}}, {'param_groups': []}], ids=str)
def test_a_pytorch_file_whose_optimiser_was_taken_out_starts_with_a_fresh_one(left, tmp_path):
    model, ours = torch_model(SMALL), small(SMALL)
    checkpoint = torch_checkpoint(model)
    del checkpoint['optimizer']
    if left is not None:
        checkpoint['optimizer'] = left
    torch_writer.write(tmp_path / 'a.pth', checkpoint)
    found = formats.read(tmp_path / 'a.pth', ours.parts)
    assert (found.step, found.moments) == (7, None)
    formats.fit(found.params, ours, 'a.pth')


def test_a_flax_file_whose_optimiser_has_no_state_starts_with_a_fresh_one(outline, tmp_path):
    state = serialization.msgpack_restore(FLAX.read_bytes())
    del state['optimizer']['state']
    (tmp_path / 'a').write_bytes(serialization.msgpack_serialize(state))
    found = formats.read(tmp_path / 'a', outline.parts)
    assert (found.step, found.moments) == (600_000, None)


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e300])
def test_the_first_array_that_is_not_finite_is_named(value, outline):
    """Of float64 also what is infinite as float32. The first is that of the forward pass."""
    flat = formats.read(FLAX, outline.parts).params
    for name in ('Conv_1/kernel', 'Conv_0/bias'):
        flat[name] = flat[name].astype(np.float64)
        flat[name].flat[-1] = value
    with pytest.raises(InputError, match='^params of FILE: Conv_0/bias has numbers that are not'):
        formats.fit(flat, outline, 'params of FILE')

"""Parameters of EDM's networks under our names, for all options."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import models
from published import edm_names, edm_networks, formats
from tests.support import edm

SONG = {
    'img_resolution': 16,
    'img_channels': 3,
    'model_type': 'SongUNet',
    'model_channels': 8,
    'channel_mult': [1, 2],
    'num_blocks': 1,
    'attn_resolutions': [8],
}
ADM = SONG | {'model_type': 'DhariwalUNet', 'model_channels': 32, 'channel_mult': [2, 4]}
OPTIONS = [
    *[
        SONG
        | {
            'encoder_type': into,
            'decoder_type': out,
            'embedding_type': ('positional', 'fourier')[i % 2],
            'channel_mult_noise': (1, 2)[i % 2],
            'resample_filter': ([1, 1], [1, 3, 3, 1])[i // 2 % 2],
            'label_dim': (0, 10)[i % 3 > 0],
            'num_blocks': 1 + i % 2,
            'attn_resolutions': ([], [16, 8])[i // 3],
        }
        for i, (into, out) in enumerate(
            itertools.product(('standard', 'skip', 'residual'), ('standard', 'skip'))
        )
    ],
    SONG | {'channel_mult': [1, 2, 2], 'channel_mult_emb': 2},
    ADM,
    ADM | {'attn_resolutions': [16, 8], 'label_dim': 7, 'channel_mult_emb': 2},
    ADM | {'attn_resolutions': [16], 'num_blocks': 2, 'channel_mult': [2, 2, 4]},
    # The finest level is too narrow for a head.
    ADM | {'attn_resolutions': [16, 8], 'channel_mult': [1, 2]},
]


def outline(fields):
    """Of our network of these fields."""
    own = {k.removeprefix('model.'): v for k, v in fields.items() if k.startswith('model.')}
    del own['parameterization']
    if 'fir_kernel' in own:
        own['fir_kernel'] = tuple(map(float, own['fir_kernel']))
    network = models.create(**own)
    x, labels = jnp.zeros((1, *fields['data.image_size'], 3)), jnp.ones(1)
    return formats.outline(lambda key: network.init(key, x, labels)['params'])


def described(arguments):
    """The names and shapes, by EDM's constructor."""
    make = edm.song if arguments['model_type'] == 'SongUNet' else edm.dhariwal
    return make(**arguments)


@pytest.mark.parametrize('arguments', OPTIONS, ids=range(len(OPTIONS)))
def test_all_parameters_have_a_name_with_us_and_come_back(arguments):
    state = edm.random_state(described(arguments), arguments.get('resample_filter', (1, 1)))
    fields = edm_networks.fields('EDMPrecond', arguments)
    found = edm_names.renamed(state, fields)
    formats.fit(found, outline(fields), 'EDM')  # All of them, and of their shapes.
    parameters = [value for name, value in state.items() if 'resample_filter' not in name]
    flat = [
        np.concatenate([np.ravel(v) for v in values]) for values in (found.values(), parameters)
    ]
    np.testing.assert_array_equal(*map(np.sort, flat))
    back = edm_names.exported(found, fields)
    assert back.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_what_has_no_place_keeps_its_name():
    state = {'model.enc.16x16_block7.conv0.weight': np.zeros((8, 8, 3, 3))}
    fields = edm_networks.fields('EDMPrecond', SONG)
    assert list(edm_names.renamed(state, fields)) == ['enc.16x16_block7.conv0.weight']


def test_the_layer_of_the_augmentation_is_left_out():
    fields = edm_networks.fields('EDMPrecond', SONG | {'augment_dim': 9})
    assert edm_names.renamed({'model.map_augment.weight': np.zeros((8, 9))}, fields) == {}

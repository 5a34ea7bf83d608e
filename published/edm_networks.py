"""EDM's networks as ours: the fields that a config has to have, by the arguments of EDM's classes.

EDM (Karras et al. 2022) has two networks, SongUNet (NCSN++ and DDPM++) and DhariwalUNet (ADM),
within a preconditioning: its own, or those of VP and VE. A class and its arguments are a network;
some of these our networks do not have, and such a file is refused.
"""

from collections.abc import Mapping
from typing import Any

from choices import InputError

Fields = dict[str, Any]  # by dotted names

# The preconditionings: our parameterization, what else of our fields goes with it, and the
# embedding that we have for each of theirs, which sees log(sigma) / 4, 999 t or log(sigma / 2).
PRECONDITIONINGS = {
    'EDMPrecond': (
        {'model.parameterization': 'edm', 'data.centered': True},
        {'positional': 'log_positional', 'fourier': 'fourier'},
    ),
    'VPPrecond': (
        {'model.parameterization': 'noise', 'data.centered': True, 'sde.name': 'vp'},
        {'positional': 'positional'},
    ),
    # In units of [0, 1], of which sigma is half.
    'VEPrecond': (
        {
            'model.parameterization': 'score',
            'data.centered': False,
            'sde.name': 've',
            'model.scale_by_sigma': True,
        },
        {'positional': 'log_positional', 'fourier': 'fourier'},
    ),
}
NETWORKS = {'SongUNet': 'ncsnpp', 'DhariwalUNet': 'adm'}

# Arguments that are not given have these values.
DEFAULTS = {
    'EDMPrecond': {'sigma_data': 0.5, 'model_type': 'DhariwalUNet'},
    'VPPrecond': {'beta_d': 19.9, 'beta_min': 0.1, 'M': 1000, 'model_type': 'SongUNet'},
    'VEPrecond': {'model_type': 'SongUNet'},
    'SongUNet': {
        'model_channels': 128,
        'channel_mult': [1, 2, 2, 2],
        'num_blocks': 4,
        'attn_resolutions': [16],
        'embedding_type': 'positional',
        'channel_mult_noise': 1,
        'encoder_type': 'standard',
        'decoder_type': 'standard',
        'resample_filter': [1, 1],
    },
    'DhariwalUNet': {
        'model_channels': 192,
        'channel_mult': [1, 2, 3, 4],
        'num_blocks': 3,
        'attn_resolutions': [32, 16, 8],
    },
    'all': {'label_dim': 0, 'channel_mult_emb': 4},
}
NEEDED = ('img_resolution', 'img_channels')
# Those that have one value with us.
FIXED = {'sigma_data': 0.5, 'beta_d': 19.9, 'beta_min': 0.1, 'M': 1000}
# Those that say how a network was trained, or how fast it is.
OF_TRAINING = (
    *('use_fp16', 'sigma_min', 'sigma_max', 'epsilon_t'),
    *('augment_dim', 'dropout', 'label_dropout'),
)

CHANNELS_PER_HEAD = 64  # of ADM's attention
ENCODERS = {'standard': 'none', 'skip': 'input_skip', 'residual': 'residual'}
DECODERS = {'standard': 'none', 'skip': 'output_skip'}


# Fields and arguments


def fields(kind: str, arguments: Mapping[str, Any]) -> Fields:
    """What the fields of a config have to be for a network of this class with these arguments.

    Raises InputError for classes and values of arguments that our networks do not have.
    """
    precondition, embeddings = _of(PRECONDITIONINGS, kind, 'a preconditioning')
    given = _completed(kind, arguments)
    name = _of(NETWORKS, given['model_type'], 'a network')
    theirs = given.get('embedding_type', 'positional')
    return {
        'model.name': name,
        'data.image_size': (given['img_resolution'], given['img_resolution']),
        'data.channels': given['img_channels'],
        'model.num_classes': given['label_dim'],
        'model.nf': given['model_channels'],
        'model.ch_mult': tuple(given['channel_mult']),
        'model.num_res_blocks': given['num_blocks'],
        'model.attn_resolutions': _attention(name, given),
        'model.embedding_mult': given['channel_mult_emb'],
        'model.embedding_type': _of(embeddings, theirs, f'an embedding_type of {kind}'),
        'model.conditional': True,
        'model.nonlinearity': 'swish',
        'model.scale_by_sigma': False,
        **precondition,
        **(_song(given) if name == 'ncsnpp' else _adm()),
    }


def _completed(kind, arguments):
    """The arguments of a preconditioning, with the defaults of it and of its network."""
    model = arguments.get('model_type', DEFAULTS[kind]['model_type'])
    defaults = DEFAULTS['all'] | DEFAULTS[kind] | DEFAULTS.get(model, {})
    given = defaults | dict(arguments)
    for argument in arguments:
        if model in NETWORKS and argument not in (*defaults, *NEEDED, *OF_TRAINING):
            raise InputError(f'{model} has an argument {argument!r}, which is not known')
    for argument in NEEDED:
        if argument not in arguments:
            raise InputError(f'{kind} lacks the argument {argument!r}')
    for argument, value in FIXED.items():
        if given.get(argument, value) != value:
            raise InputError(f'{kind} has {argument}={given[argument]}, and {value} is needed')
    return given


def _attention(name, given):
    """The sizes with attention, of those that there are; ADM has none where a head would be less
    than whole.
    """
    finest, width = given['img_resolution'], given['model_channels']
    widths = {finest >> i: width * multiple for i, multiple in enumerate(given['channel_mult'])}
    least = CHANNELS_PER_HEAD if name == 'adm' else 0
    return tuple(side for side in given['attn_resolutions'] if widths.get(side, -1) >= least)


def _song(given):
    """What SongUNet has besides."""
    noise = {'positional': 1, 'fourier': 2}[given['embedding_type']]
    if given['channel_mult_noise'] != noise:
        raise InputError(
            f'SongUNet has channel_mult_noise={given["channel_mult_noise"]}, and {noise} is needed '
            f'with embedding_type={given["embedding_type"]!r}'
        )
    into = _of(ENCODERS, given['encoder_type'], 'an encoder_type')
    found = {
        'model.progressive_input': into,
        'model.progressive': _of(DECODERS, given['decoder_type'], 'a decoder_type'),
        'model.resblock_type': 'biggan',
        'model.skip_rescale': True,
    }
    filter = tuple(given['resample_filter'])
    # The convolution of 'residual' is fused with a filter, be it a mean of two.
    found['model.fir'] = filter != (1, 1) or into == 'residual'
    if found['model.fir']:
        found['model.fir_kernel'] = filter
    if into == 'input_skip':
        found['model.progressive_combine'] = 'sum'
    if given['label_dim']:
        found['model.class_input'] = 'features'
    return found


def _adm():
    """What DhariwalUNet has besides."""
    return {'model.channels_per_head': CHANNELS_PER_HEAD, 'model.resamp_with_conv': False}


def arguments(values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class and the arguments with which EDM makes the network of a config, of which `values`
    are the fields by dotted names.

    Raises InputError, which names the fields, if EDM has no such network.
    """
    kinds = {ours['model.parameterization']: kind for kind, (ours, _) in PRECONDITIONINGS.items()}
    kind = _by_field(kinds, values, 'model.parameterization')
    model = _by_field(_inverse(NETWORKS), values, 'model.name')
    found = {
        'img_resolution': values['data.image_size'][0],
        'img_channels': values['data.channels'],
        'label_dim': values['model.num_classes'],
        'model_type': model,
        'model_channels': values['model.nf'],
        'channel_mult': list(values['model.ch_mult']),
        'channel_mult_emb': values['model.embedding_mult'],
        'num_blocks': values['model.num_res_blocks'],
        'attn_resolutions': list(values['model.attn_resolutions']),
        'dropout': values['model.dropout'],
    }
    if model == 'SongUNet':
        found |= _song_arguments(values)
    # Scores that are gradients have the same parameters, and mean something else.
    needed = fields(kind, found) | {'model.energy': 'none'}
    if differing := misfits(needed, {'model.energy': 'none', **values}):
        raise InputError(f'EDM has no such network: {"; ".join(differing)}')
    return kind, found


def _song_arguments(values):
    is_fourier = values['model.embedding_type'] == 'fourier'
    return {
        'embedding_type': 'fourier' if is_fourier else 'positional',
        'channel_mult_noise': 2 if is_fourier else 1,
        'encoder_type': _by_field(_inverse(ENCODERS), values, 'model.progressive_input'),
        'decoder_type': _by_field(_inverse(DECODERS), values, 'model.progressive'),
        'resample_filter': list(values['model.fir_kernel']) if values['model.fir'] else [1, 1],
    }


def misfits(needed: Fields, values: Mapping[str, Any]) -> list[str]:
    """A phrase for each field that is not what is needed; of another network only that."""
    differing = [
        f'{field} is {values.get(field)!r}, and {value!r} is needed'
        for field, value in needed.items()
        if values.get(field) != value
    ]
    return differing[:1] if values.get('model.name') != needed.get('model.name') else differing


def _of(table, name, what):
    if name not in table:
        raise InputError(f'{name!r} is {what} that is not known; known: {", ".join(table)}')
    return table[name]


def _by_field(table, values, field):
    if values.get(field) not in table:
        raise InputError(f'{field}: {values.get(field)!r}; one of {", ".join(table)} needed')
    return table[values[field]]


def _inverse(table):
    return {ours: theirs for theirs, ours in table.items()}

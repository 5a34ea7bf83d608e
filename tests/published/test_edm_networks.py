"""What fields a config has to have for a network of EDM, and what EDM calls a network of ours."""

import importlib

import pytest

from choices import InputError
from published import edm_networks
from storage import workdirs

SONG = {
    'img_resolution': 32,
    'img_channels': 3,
    'model_type': 'SongUNet',
    'channel_mult': [2, 2, 2],
}
NCSNPP = {
    **SONG,
    'embedding_type': 'fourier',
    'channel_mult_noise': 2,
    'encoder_type': 'residual',
    'resample_filter': [1, 3, 3, 1],
}
FACES = {'img_resolution': 64, 'channel_mult': [1, 2, 2, 2]}
ADM = {'img_resolution': 64, 'img_channels': 3, 'label_dim': 1000, 'model_type': 'DhariwalUNet'}
# What EDM's own commands (training/train.py) make of its published experiments, and the baselines.
PUBLISHED = [
    ('EDMPrecond', SONG, 'edm/cifar10_ddpmpp'),
    ('EDMPrecond', NCSNPP, 'edm/cifar10_ncsnpp'),
    ('EDMPrecond', SONG | {'label_dim': 10}, 'edm/cifar10_cond_ddpmpp'),
    ('EDMPrecond', NCSNPP | {'label_dim': 10}, 'edm/cifar10_cond_ncsnpp'),
    ('EDMPrecond', SONG | FACES, 'edm/ffhq64_ddpmpp'),
    ('EDMPrecond', NCSNPP | FACES, 'edm/ffhq64_ncsnpp'),
    ('EDMPrecond', SONG | FACES, 'edm/afhqv2_64_ddpmpp'),
    ('EDMPrecond', NCSNPP | FACES, 'edm/afhqv2_64_ncsnpp'),
    ('EDMPrecond', ADM, 'edm/imagenet64_adm'),
    ('VPPrecond', SONG | {'channel_mult': [1, 2, 2, 2]}, 'vp/cifar10_ddpmpp_continuous'),
    ('VEPrecond', NCSNPP | {'channel_mult': [1, 2, 2, 2]}, 've/cifar10_ncsnpp_continuous'),
]


def values(name):
    """The fields of a config by dotted names."""
    module = importlib.import_module('configs.' + name.replace('/', '.'))
    return workdirs.flatten(module.get_config().to_dict())


@pytest.mark.parametrize(
    ('kind', 'arguments', 'name'), PUBLISHED, ids=lambda value: str(value)[:30]
)
def test_published_networks_fit_their_configs_and_only_those(kind, arguments, name):
    needed = edm_networks.fields(kind, arguments | {'dropout': 0.3, 'use_fp16': True})
    assert edm_networks.misfits(needed, values(name)) == []
    others = {other for *_, other in PUBLISHED if edm_networks.misfits(needed, values(other)) == []}
    assert {other.replace('afhqv2_64', 'ffhq64') for other in others} == {
        name.replace('afhqv2_64', 'ffhq64')
    }


@pytest.mark.parametrize(
    ('kind', 'arguments', 'name'), PUBLISHED, ids=lambda value: str(value)[:30]
)
def test_the_arguments_of_a_config_are_those_of_its_network(kind, arguments, name):
    found_kind, found = edm_networks.arguments(values(name))
    assert found_kind == kind
    assert edm_networks.fields(kind, found) == edm_networks.fields(kind, arguments)


def test_all_fields_that_differ_are_named():
    needed = edm_networks.fields('EDMPrecond', NCSNPP | {'label_dim': 10})
    assert edm_networks.misfits(needed, values('edm/cifar10_ddpmpp')) == [
        'model.num_classes is 0, and 10 is needed',
        "model.embedding_type is 'log_positional', and 'fourier' is needed",
        "model.progressive_input is 'none', and 'residual' is needed",
        'model.fir is False, and True is needed',
    ]
    assert edm_networks.misfits(needed, values('edm/imagenet64_adm')) == [
        "model.name is 'adm', and 'ncsnpp' is needed"
    ]


@pytest.mark.parametrize(
    ('kind', 'change', 'said'),
    [
        ('iDDPMPrecond', {}, "'iDDPMPrecond' is a preconditioning that is not known; known: EDM"),
        ('EDMPrecond', {'model_type': 'UNet'}, "'UNet' is a network that is not known"),
        (
            'EDMPrecond',
            {'logvar_channels': 128},
            "an argument 'logvar_channels', which is not known",
        ),
        ('EDMPrecond', {'sigma_data': 1.0}, r'sigma_data=1\.0, and 0\.5 is needed'),
        ('VPPrecond', {'beta_d': 10}, r'beta_d=10, and 19\.9 is needed'),
        ('VPPrecond', {'embedding_type': 'fourier'}, "'fourier' is an embedding_type of VPPrecond"),
        ('EDMPrecond', {'channel_mult_noise': 2}, 'channel_mult_noise=2, and 1 is needed'),
        ('EDMPrecond', {'encoder_type': 'other'}, "'other' is an encoder_type that is not known"),
        ('EDMPrecond', {'decoder_type': 'residual'}, "'residual' is a decoder_type"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_networks_that_ours_cannot_be_are_refused(kind, change, said):
    with pytest.raises(InputError, match=said):
        edm_networks.fields(kind, SONG | change)


@pytest.mark.parametrize('name', ['img_resolution', 'img_channels'])
def test_arguments_without_a_default_are_needed(name):
    with pytest.raises(InputError, match=f"EDMPrecond lacks the argument '{name}'"):
        edm_networks.fields('EDMPrecond', {k: v for k, v in SONG.items() if k != name})


@pytest.mark.parametrize(
    ('name', 'change', 'said'),
    [
        ('vp/ddpm/cifar10_continuous', {}, "model.name: 'ddpm'; one of ncsnpp, adm needed"),
        ('vp/cifar10_ddpmpp', {}, "model.parameterization: 'ddpm'; one of edm, noise, score"),
        ('subvp/cifar10_ddpmpp_continuous', {}, "sde.name is 'subvp', and 'vp' is needed"),
        (
            'edm/cifar10_ddpmpp',
            {'model.resblock_type': 'ddpm', 'data.image_size': (32, 64)},
            r'data.image_size is \(32, 64\), and \(32, 32\) is needed; '
            r"model.resblock_type is 'ddpm', and 'biggan' is needed$",
        ),
        (
            'edm/cifar10_ddpmpp',
            {'model.progressive': 'residual'},
            "model.progressive: 'residual'; one of none, output_skip needed",
        ),
        (
            'edm/imagenet64_adm',
            {'model.channels_per_head': 32},
            'model.channels_per_head is 32, and 64 is needed',
        ),
        (
            'edm/imagenet64_adm',
            {'model.energy': 'norm'},
            "model.energy is 'norm', and 'none' is needed",
        ),
    ],
)
def test_networks_that_edm_does_not_have_are_refused(name, change, said):
    with pytest.raises(InputError, match=said):
        edm_networks.arguments(values(name) | change)

"""PyTorch's names of the RefineNets; those of the U-Nets are tested as files, in test_formats."""

import numpy as np
import pytest

from published import torch_names
from tests.support import golden


def parts(prefix, norm, stages):
    """The parts of our network in the order of its calls."""
    residual = [f'{prefix[0]}ResidualBlock_{i}' for i in range(2 * stages)]
    refine = [f'{prefix[1]}RefineBlock_{i}' for i in range(stages)]
    return ['Conv_0', *residual, *refine, f'{norm}_0', 'Conv_1']


NCSN = parts(('Conditional', 'Cond'), 'ConditionalInstanceNorm2dPlus', 4)


def recorded(name):
    data = golden.load(name)
    return {k.removeprefix('params/'): v for k, v in data.items() if k.startswith('params/')}


def ncsnv2():
    """The names of NCSNv2 in PyTorch: those of NCSN, without norms in refine blocks and labels."""
    for name, value in recorded('model_ncsn_torch').items():
        if not name.endswith('.embed.weight'):
            yield name, value
        elif not name.startswith('refine'):
            for kind in ('alpha', 'gamma', 'beta'):
                yield name.replace('embed.weight', kind), value[0, : value.shape[1] // 3]


def test_names_of_ncsnv2_are_those_of_the_flax_network():
    found = torch_names.renamed(dict(ncsnv2()), parts(('', ''), 'InstanceNorm2dPlus', 4))
    assert found.keys() == recorded('model_ncsnv2').keys()


def test_kernels_of_ncsn_are_turned_and_embeddings_are_not():
    model = recorded('model_ncsn_torch')
    found = torch_names.renamed(model, NCSN)
    assert len(found) == len(model)
    for value, (name, theirs) in zip(found.values(), model.items(), strict=True):
        turned = theirs.transpose(2, 3, 1, 0) if theirs.ndim == 4 else theirs
        np.testing.assert_array_equal(value, turned, err_msg=name)


@pytest.mark.parametrize(
    ('theirs', 'ours'),
    [
        ('end_conv.bias', 'Conv_1/bias'),
        ('normalizer.embed.weight', 'ConditionalInstanceNorm2dPlus_0/Embed_0/embedding'),
        ('res2.0.conv2.conv.weight', 'ConditionalResidualBlock_2/ConvMeanPool_0/Conv_0/kernel'),
        ('res2.0.shortcut.conv.bias', 'ConditionalResidualBlock_2/ConvMeanPool_1/Conv_0/bias'),
        ('res4.0.shortcut.weight', 'ConditionalResidualBlock_6/Conv_2/kernel'),
        (
            'res1.1.normalize2.embed.weight',
            'ConditionalResidualBlock_1/ConditionalInstanceNorm2dPlus_1/Embed_0/embedding',
        ),
        ('refine1.output_convs.1_2_conv.weight', 'CondRefineBlock_0/CondRCUBlock_1/Conv_1/kernel'),
        ('refine4.output_convs.3_1_conv.weight', 'CondRefineBlock_3/CondRCUBlock_2/Conv_4/kernel'),
        ('refine2.adapt_convs.1.2_1_conv.weight', 'CondRefineBlock_1/CondRCUBlock_1/Conv_2/kernel'),
        (
            'refine3.crp.norms.1.embed.weight',
            'CondRefineBlock_2/CondCRPBlock_0/ConditionalInstanceNorm2dPlus_1/Embed_0/embedding',
        ),
        ('refine3.msf.convs.0.bias', 'CondRefineBlock_2/CondMSFBlock_0/Conv_0/bias'),
    ],
)
def test_parts_of_ncsn_are_where_flax_has_them(theirs, ours):
    model = recorded('model_ncsn_torch')
    names = dict(zip(model, torch_names.renamed(model, NCSN), strict=True))
    assert names[theirs] == ours


def test_the_stages_of_the_deepest_network_are_in_the_order_of_the_forward_pass():
    """PyTorch has them in another order, and calls two of them 31."""
    residual = [f'res{i}.{j}.conv1.bias' for i in (1, 2, 3, 31, 4, 5) for j in (0, 1)]
    refine = [f'refine{i}.crp.convs.0.weight' for i in (1, 2, 31, 3, 4, 5)]
    model = dict.fromkeys(sorted(residual), np.zeros(1)) | dict.fromkeys(
        sorted(refine), np.zeros((1, 1, 1, 1))
    )
    found = torch_names.renamed(model, parts(('', ''), 'InstanceNorm2dPlus', 6))
    names = dict(zip(model, found, strict=True))
    assert [names[name] for name in residual] == [
        f'ResidualBlock_{i}/Conv_0/bias' for i in range(12)
    ]
    assert [names[name] for name in refine] == [
        f'RefineBlock_{i}/CRPBlock_0/Conv_0/kernel' for i in range(6)
    ]


@pytest.mark.parametrize(
    'name', ['res1.0.conv3.weight', 'other.weight', 'refine9.msf.convs.0.bias']
)
def test_what_has_no_place_keeps_its_name(name):
    model = {**recorded('model_ncsn_torch'), name: np.zeros((1, 1, 1, 1))}
    assert name in torch_names.renamed(model, NCSN)


@pytest.mark.parametrize(
    'name',
    [
        'all_modules.3.Conv_0.weight',
        'module.all_modules.3.Conv_0.weight',
        'module.module.all_modules.3.Conv_0.weight',
        '_orig_mod.all_modules.3.Conv_0.weight',
        '_orig_mod.module.all_modules.3.Conv_0.weight',
        'module._orig_mod.all_modules.3._orig_mod.Conv_0.weight',
    ],
)
def test_what_wrappers_add_to_names_is_taken_away(name):
    given = {name: np.ones(1), f'{name.partition("all_modules")[0]}sigmas': np.ones(1)}
    assert list(torch_names.parameters(given)) == ['all_modules.3.Conv_0.weight']


def test_a_name_that_is_there_with_and_without_its_wrapper_is_refused():
    with pytest.raises(ValueError, match=r'a\.b is there twice'):
        torch_names.parameters({'module.a.b': np.ones(1), 'a.b': np.zeros(1)})

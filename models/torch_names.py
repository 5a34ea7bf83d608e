"""Parameters of the published PyTorch networks under our names and in our layout."""

import re

import numpy as np
from jaxtyping import Shaped

NORM = 'ConditionalInstanceNorm2dPlus_'

# Parts of a name in NCSN's PyTorch code, in the order in which they are tried at its beginning, and
# ours. A function takes the match.
NCSN = [
    (r'begin_conv\.', 'Conv_0/'),
    (r'end_conv\.', 'Conv_1/'),
    (r'normalizer\.', f'{NORM}0/'),
    (r'res(\d)\.(\d)\.', lambda m: f'ConditionalResidualBlock_{2 * int(m[1]) - 2 + int(m[2])}/'),
    (r'normalize(\d)\.', lambda m: f'{NORM}{int(m[1]) - 1}/'),
    (r'conv2\.conv\.(?:1\.)?', 'ConvMeanPool_0/Conv_0/'),
    (r'shortcut\.conv\.(?:1\.)?', 'ConvMeanPool_1/Conv_0/'),
    (r'shortcut\.', 'Conv_2/'),
    (r'conv(\d)\.', lambda m: f'Conv_{int(m[1]) - 1}/'),
    # The units of the output come after those of one input, or two.
    (r'refine1\.output_convs\.', 'CondRefineBlock_0/CondRCUBlock_1/'),
    (r'refine(\d)\.output_convs\.', lambda m: f'CondRefineBlock_{int(m[1]) - 1}/CondRCUBlock_2/'),
    (r'refine(\d)\.', lambda m: f'CondRefineBlock_{int(m[1]) - 1}/'),
    (r'adapt_convs\.(\d)\.', r'CondRCUBlock_\1/'),
    (r'(\d)_(\d)_norm\.', lambda m: f'{NORM}{2 * int(m[1]) + int(m[2]) - 3}/'),
    (r'(\d)_(\d)_conv\.', lambda m: f'Conv_{2 * int(m[1]) + int(m[2]) - 3}/'),
    (r'msf\.', 'CondMSFBlock_0/'),
    (r'crp\.', 'CondCRPBlock_0/'),
    (r'convs\.(\d)\.', r'Conv_\1/'),
    (r'norms\.(\d)\.', rf'{NORM}\1/'),
    (r'embed\.weight$', 'Embed_0/embedding'),
    (r'weight$', 'kernel'),
    (r'bias$', 'bias'),
]


def ncsn_name(torch_name: str) -> str:
    """Our name, parts separated by '/', of a parameter of NCSN; raises KeyError if there is none.

    The original code and score_sde's PyTorch port use the same names.
    """
    name, rest = '', torch_name.removeprefix('module.')
    while rest:
        matches = ((re.match(pattern, rest), ours) for pattern, ours in NCSN)
        match, ours = next(((m, ours) for m, ours in matches if m), (None, None))
        if match is None:
            raise KeyError(torch_name)
        name += ours(match) if callable(ours) else match.expand(ours)
        rest = rest[match.end() :]
    return name


def layout(ours: str, array: Shaped[np.ndarray, '...']) -> Shaped[np.ndarray, '...']:
    """A PyTorch parameter as we have it: OIHW kernels as HWIO, matrices of `kernel`s transposed."""
    if not ours.endswith('/kernel'):
        return array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T

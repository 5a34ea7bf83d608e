"""Networks: they know of images, noise labels and classes, not of SDEs, losses or configs.

A score network is called as `network(x, labels, train=False)`, with `classes` if it has the field
`num_classes`, and gives an array of x's shape; an energy is called alike, and gives one number for
each image; a classifier is called as `network(x, sigmas)`. All have

    plan(height, width)   raises ArgumentError for sizes that it cannot take
    dtype, precision      in what it computes; what products of float32 numbers are
    remat                 whether gradients compute activations again
    integer_labels        labels are levels of a chain (score networks and energies)
    centered              images come in [-1, 1] (score networks and energies)
    out_channels          if its input may have further channels (model.input_fourier)

and declare by `choices.option` the fields that a config has.
"""

import dataclasses
from typing import Any

import flax.linen as nn

from choices import ArgumentError, choose, similar
from models.adm import ADM
from models.ddpm import DDPM
from models.energy import EnergyConv, EnergyMLP
from models.ncsn import NCSN
from models.ncsnpp import NCSNpp
from models.ncsnv2 import NCSNv2For64, NCSNv2For128, NCSNv2For256
from models.normalised_mlp import NormalisedMLP
from models.residual_mlp import ResidualMLP
from models.wideresnet import WideResnet


def create(name: str, **fields: Any) -> nn.Module:
    """The network called `name` with these fields, lists as tuples.

    Raises ArgumentError for a name, a field or the value of a field that is not known.
    """
    network = choose(MODELS, name, 'name')
    known = [field.name for field in all_fields(network)]
    for field in fields:
        if field not in known:
            raise ArgumentError(field, f'{name!r} has no such field{similar(field, known)}')
    return network(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def all_fields(network: type[nn.Module]) -> list[dataclasses.Field]:
    """The fields of a network; those that are options are the ones that users set."""
    # Flax gives every network a parent and a name.
    return [field for field in dataclasses.fields(network) if field.name not in ('parent', 'name')]


# What these say of (x, noise) is an array of x's shape ...
SCORE_NETWORKS: dict[str, type[nn.Module]] = {
    'ncsnpp': NCSNpp,
    'ddpm': DDPM,
    'adm': ADM,
    'ncsnv2_64': NCSNv2For64,
    'ncsnv2_128': NCSNv2For128,
    'ncsnv2_256': NCSNv2For256,
    'ncsn': NCSN,
    'residual_mlp': ResidualMLP,
}
# ... of these, one number, whose gradient is such an array ...
ENERGY_NETWORKS: dict[str, type[nn.Module]] = {'energy_mlp': EnergyMLP, 'energy_conv': EnergyConv}
# ... and of these, logits of classes.
CLASSIFIERS: dict[str, type[nn.Module]] = {
    'wideresnet': WideResnet,
    'normalised_mlp': NormalisedMLP,
}
MODELS: dict[str, type[nn.Module]] = {**SCORE_NETWORKS, **ENERGY_NETWORKS, **CLASSIFIERS}

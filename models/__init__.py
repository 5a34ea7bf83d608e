"""Networks: they know of images, noise labels and classes, not of SDEs, losses or configs."""

import dataclasses
from typing import Any

import flax.linen as nn

from choices import choose
from models.ddpm import DDPM
from models.ncsn import NCSN
from models.ncsnpp import NCSNpp
from models.ncsnv2 import NCSNv2For64, NCSNv2For128, NCSNv2For256
from models.wideresnet import WideResnet


def create(name: str, **fields: Any) -> nn.Module:
    """The network called `name` with these fields, lists as tuples; ValueError for unknown ones."""
    network = choose(MODELS, name, 'model.name')
    known = {field.name: field for field in dataclasses.fields(network)}
    known = {field: known[field] for field in known if field not in ('parent', 'name')}
    for field in fields:
        choose(known, field, f'field of model {name}')
    return network(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


# What these say of (x, noise) are logits of classes; of the others, an array of x's shape.
CLASSIFIERS: dict[str, type[nn.Module]] = {'wideresnet': WideResnet}

MODELS: dict[str, type[nn.Module]] = {
    'ncsnpp': NCSNpp,
    'ddpm': DDPM,
    'ncsnv2_64': NCSNv2For64,
    'ncsnv2_128': NCSNv2For128,
    'ncsnv2_256': NCSNv2For256,
    'ncsn': NCSN,
    **CLASSIFIERS,
}

"""Networks. They know of images, noise labels and classes, and nothing of SDEs, losses or configs."""

import dataclasses
from typing import Any

import flax.linen as nn

from choices import choose
from models.ncsnpp import NCSNpp


def create(name: str, **fields: Any) -> nn.Module:
    """The network `name` with these fields; lists become tuples. ValueError for unknown names."""
    network = choose(MODELS, name, 'model.name')
    known = {field.name: field for field in dataclasses.fields(network) if field.name not in ('parent', 'name')}
    for field in fields:
        choose(known, field, f'model {name}')
    return network(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


MODELS: dict[str, type[nn.Module]] = {'ncsnpp': NCSNpp}

"""What tests of networks share: recorded cases, and parameters without compiling `init`."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np

import models
from tests.support import golden


def recorded(name):
    """A network as recorded: itself, parameters by path, `x`, `labels`, `y`."""
    data = golden.load(f'model_{name}')
    params = {k.removeprefix('params/'): v for k, v in data.items() if k.startswith('params/')}
    return configured(data['config']), params, data['x'], data['labels'], data['y']


def configured(text):
    """The network of a published config, which is recorded as JSON."""
    config = json.loads(str(text))
    network_name = config['model']['name']
    known = {field.name: field.type for field in dataclasses.fields(models.MODELS[network_name])}
    fields = {
        name: _of_type(known[name], value)
        for name, value in config['model'].items()
        if name in known and name != 'name'
    }
    return models.create(network_name, **fields, centered=config['data']['centered'])


def _of_type(wanted, value):
    """What JSON has as 50 and [1, 3] may be 50.0 and (1.0, 3.0)."""
    if wanted is float:
        return float(value)
    return tuple(map(float, value)) if wanted == tuple[float, ...] else value


def abstract(network, shape, labels=None):
    """The parameters' shapes, without computing."""
    if labels is None:
        # Classifiers are told noise levels, of which no field speaks.
        is_level = getattr(network, 'integer_labels', False)
        labels = jnp.ones(shape[0], jnp.int32 if is_level else jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape), labels)['params']


def init(network, shape):
    """Random parameters, biases too; `network.init` would take longer to compile than the rest."""
    return randomised(abstract(network, shape))


def randomised(params):
    """Values for abstract parameters."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: jnp.float32(rng.normal(0, 0.2, p.shape)), params)


def quick_jit(function):
    """`function` compiled with little optimisation, in a fraction of the time."""
    return jax.jit(function, compiler_options={'xla_backend_optimization_level': 0})


def flat(params):
    """Parameters by path."""
    return {
        '/'.join(key.key for key in path): value
        for path, value in jax.tree_util.tree_leaves_with_path(params)
    }


def nested(params):
    """The inverse of `flat`."""
    tree = {}
    for path, value in params.items():
        *parents, leaf = path.split('/')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = jnp.asarray(value)
    return tree


def shapes(params):
    """The shapes of parameters by path."""
    return {path: value.shape for path, value in params.items()}

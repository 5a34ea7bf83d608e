"""An experiment that is neither a score model nor a classifier: regression of vectors.

python main.py --config=tests/support/regression.py, once `register` has made it known.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from choices import Range
from configs import base, fields
from configs.fields import Field
from devices import sharding
from evaluation.batchwise import Found, OverData
from evaluation.quantities import HIGHER, Quantity
from experiments import kinds
from training import EMA, MovingAverage, Update

NAME = 'regression'
SHARE = Range(0, 1)


def declared(network=None):
    """Its fields."""
    curve = {
        'width': Field(16, 'of the hidden layer', Range(1, 1000)),
        'rate': Field(0.05, 'of gradient descent', Range(0)),
        'decay': Field(0.9, 'of the moving average', SHARE),
        'num_examples': Field(256, 'in either split', Range(1, 10**6)),
    }
    return {
        **base.general(NAME),
        'curve': curve,
        'training': base.run(),
        'eval': base.evaluation() | fields.changeable({'explained': Field(True, 'measure that')}),
    }


def get_config():
    config = fields.config(declared())
    config.training.update(
        {
            **{'batch_size': 32, 'num_steps': 40, 'steps_per_dispatch': 4},
            **{'log_every': 4, 'eval_every': 8, 'checkpoint_every': 8},
        }
    )
    config.eval.batch_size = 24
    config.seed = 1
    return config


def register(monkeypatch):
    """All that the program has to be told of another kind of experiment."""
    monkeypatch.setitem(base.EXPERIMENTS, NAME, declared)
    monkeypatch.setitem(kinds.EXPERIMENTS, NAME, Regression)


@dataclasses.dataclass(frozen=True)
class Points:
    """Vectors x of three numbers, and a number y of each."""

    num: int
    seed: int

    def __len__(self):
        return self.num

    def gather(self, indices):
        x = np.random.default_rng(self.seed).normal(size=(self.num, 3)).astype(np.float32)[indices]
        return {'x': x, 'y': np.tanh(x[:, 0] - x[:, 1])}


class Network(nn.Module):
    """One hidden layer."""

    width: int

    @nn.compact
    def __call__(self, x):
        hidden = nn.tanh(nn.Dense(self.width, name='hidden')(x))
        return nn.Dense(1, name='out')(hidden)[:, 0]


class Regression:
    """Least squares."""

    def __init__(self, config, mesh):
        self.config, self.mesh, fields = config, mesh, config.curve
        self.network = Network(fields.width)
        average = MovingAverage(fields.decay)
        self.update = Update(optax.sgd(fields.rate), {EMA: average}, config.seed)

    def data(self, split):
        return Points(self.config.curve.num_examples, ('train', 'test').index(split))

    def batch_shapes(self, size):
        return {
            'x': jax.ShapeDtypeStruct((size, 3), jnp.float32),
            'y': jax.ShapeDtypeStruct((size,), jnp.float32),
        }

    def init(self, key):
        return self.update.init(self.network.init(key, jnp.zeros((1, 3)))['params'])

    def step(self, state, batch):
        return self.update.step(lambda *args: self.loss(*args, True).mean(), state, batch)

    def loss(self, params, key, batch, train):
        return (self.network.apply({'params': params}, batch['x']) - batch['y']) ** 2

    def drawing(self):
        return None

    def programs(self):
        return []

    def measures(self, workdir):
        def of_batch(params, key, batch):
            return {'error': self.loss(params, key, batch, False), 'y': batch['y']}

        function, data = sharding.jit(self.mesh, of_batch), self.data('test')
        size, seed = self.config.eval.batch_size, self.config.seed
        over_test_data = OverData('explained', function, data, size, seed, self.mesh)

        def measure(checkpoint):
            found = over_test_data(checkpoint)
            share = 1 - float(found['error'].mean() / found['y'].var())
            return Found([Quantity('explained', share, better=HIGHER, of='variance')])

        return [measure] if self.config.eval.explained else []

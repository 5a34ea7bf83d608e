"""Score models of vectors: an SDE without a Gaussian kernel, and a network."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

import models
import parameterization
from experiments.reading import network_fields
from parameterization import Process, energy_process
from sde_lib import WithoutKernel
from shapes import OneKey, PerImage, State
from training import Params


@dataclasses.dataclass(frozen=True)
class PointsModel:
    """A network that is the score of an SDE's marginals, or their energy, on vectors of `dim`
    numbers. To the network they are images of one pixel.
    """

    sde: WithoutKernel
    network: nn.Module
    dim: int

    def init_params(self, key: OneKey) -> Params:
        """Initial parameters of the network."""
        with network_fields():
            return self.network.init(key, jnp.zeros((1, 1, 1, self.dim)), jnp.ones(1))['params']

    @property
    def is_energy(self) -> bool:
        """Whether the network gives one number for each vector."""
        return isinstance(self.network, tuple(models.ENERGY_NETWORKS.values()))

    def process(self, params: Params) -> Process:
        """The process with the network's score, or with its log density."""
        read = jax.tree_util.Partial(self._read, params)
        return energy_process(self.sde, read) if self.is_energy else Process(self.sde, read)

    def _read(self, params: Params, x: State, t: PerImage) -> State | PerImage:
        def network(x, labels):
            output = self.network.apply({'params': params}, x[:, None, None], labels)
            return output if self.is_energy else output.reshape(x.shape)

        if self.is_energy:
            return parameterization.beside_prior_energy(self.sde, network, x, t)
        return parameterization.beside_prior(self.sde, network, x, t)

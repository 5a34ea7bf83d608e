"""Score models: an SDE, a network, and how its output becomes the score of a process, or the energy
whose gradient that is."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Int
from ml_collections import ConfigDict

import models
import parameterization
import sde_lib
from choices import InputError, choose, fields_of
from experiments.experiment import Batch
from experiments.reading import (
    ImageFormat,
    create_network,
    create_sde,
    image_format,
    network_fields,
    plain_fields,
)
from parameterization import (
    EnergyParameterization,
    Parameterization,
    Process,
    energy_process,
)
from sde_lib import SDE
from shapes import Classes, ImageShape, OneKey, PerImage, State
from training import Params

# What networks with classes are given for none.
NO_CLASS = -1
# Activations whose second derivative is zero.
WITHOUT_CURVATURE = ('relu', 'lrelu')
# The parameter of a mixed score, beside those of the network.
MIXING_LOGIT = 'mixing_logit'


@dataclasses.dataclass(frozen=True)
class ScoreModel:
    """A network that is the score of an SDE's marginals, on images of one format.

    `num_classes` is 0 for networks that are given no class. `mixing_logit` is the first value, in
    each channel, of the logit of parameterization.mixed; None: the score is the network's alone. If
    it `is_energy`, `parameterize` gives a log density, and the score is its gradient.
    """

    sde: SDE
    network: nn.Module
    format: ImageFormat
    parameterize: Parameterization | EnergyParameterization
    input_channels: int
    num_classes: int
    mixing_logit: float | None = None
    is_energy: bool = False

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels."""
        return self.format.shape

    def init_params(self, key: OneKey) -> Params:
        """Initial parameters: of the network, and the logit of its share in a mixed score."""
        x = jnp.zeros((1, *self.image_shape[:2], self.input_channels))
        t = jnp.full(1, self.sde.T)
        given = {'classes': jnp.zeros(1, jnp.int32)} if self.num_classes else {}
        with network_fields():
            params = self.network.init(key, x, t, **given)['params']
        if self.mixing_logit is None:
            return params
        return {**params, MIXING_LOGIT: jnp.full(self.image_shape[2:], self.mixing_logit)}

    def process(
        self,
        params: Params,
        classes: Classes | Int[Array, ''] | None = None,
        dropout_key: OneKey | None = None,
    ) -> Process:
        """The process with the network's score, or with its log density; `classes` is one for each
        image or one for all; a key drops out.
        """
        read = jax.tree_util.Partial(self._read, params, classes, dropout_key)
        return energy_process(self.sde, read) if self.is_energy else Process(self.sde, read)

    def _read(
        self,
        params: Params,
        classes: Classes | Int[Array, ''] | None,
        dropout_key: OneKey | None,
        x: State,
        t: PerImage,
    ) -> State | PerImage:
        def network(x, labels):
            # Networks that know of no classes have no such argument.
            given = {} if classes is None else {'classes': jnp.broadcast_to(classes, x.shape[:1])}
            rngs = None if dropout_key is None else {'dropout': dropout_key}
            train = dropout_key is not None
            return self.network.apply(
                {'params': params}, x, labels, train=train, rngs=rngs, **given
            )

        if self.mixing_logit is None:
            return self.parameterize(self.sde, network, x, t)
        logit = params[MIXING_LOGIT]
        return parameterization.mixed(self.parameterize, logit, self.sde, network, x, t)

    def with_precision(self, precision: str) -> 'ScoreModel':
        """This model with other products of float32 numbers, one of models.layers.PRECISIONS."""
        return dataclasses.replace(self, network=self.network.clone(precision=precision))

    def classes(self, batch: Batch) -> Classes | None:
        """The labels of a batch, if the network is given them."""
        return batch['label'] if self.num_classes else None


def create(config: ConfigDict) -> ScoreModel:
    """The model of images that a config gives.

    Raises InputError for names that do not exist and for fields that do not go together.
    """
    return of_format(config, image_format(config.data))


def of_format(config: ConfigDict, data: ImageFormat) -> ScoreModel:
    """The model of states of another format, be they images or codes; raises what `create` does."""
    sde = create_sde(config.sde)
    parameterize = _parameterization(config.model, sde)
    is_energy = config.model.name in models.ENERGY_NETWORKS
    if config.model.get('energy', 'none') != 'none':
        parameterize, is_energy = _energy(config.model, parameterize), True
    of_output = ['parameterization', 'energy', 'input_fourier', 'mixing_logit']
    fields = plain_fields(config.model, but=of_output)
    # Discrete SMLD networks divide by a table of the chain's levels.
    if isinstance(sde, sde_lib.SMLD):
        fields |= dataclasses.asdict(sde)
    # Of NCSN, levels are the classes.
    if config.model.name == 'ncsn':
        fields['num_classes'] = sde.num_scales
    input_fourier = config.model.get('input_fourier', ())
    if input_fourier and config.model.name in models.SCORE_NETWORKS:
        fields['out_channels'] = data.shape[-1]
    centered = data.centered or config.model.parameterization == 'edm'
    return ScoreModel(
        sde=sde,
        network=create_network(fields | {'centered': centered}, data.shape),
        format=data,
        parameterize=parameterize,
        input_channels=data.shape[-1] * (1 + 2 * len(input_fourier)),
        num_classes=config.model.get('num_classes', 0),
        mixing_logit=config.model.get('mixing_logit'),
        is_energy=is_energy,
    )


def _energy(fields: ConfigDict, parameterize: Parameterization) -> EnergyParameterization:
    """The energy that is made of a score network's output."""
    with fields_of('model'):
        make = choose(parameterization.ENERGIES, fields.energy, 'energy')
    if fields.get('nonlinearity') in WITHOUT_CURVATURE:
        raise InputError(
            f'model.nonlinearity: {fields.nonlinearity!r} has no second derivative, which training '
            f"an energy needs; with model.energy = {fields.energy!r} 'swish' or 'elu' needed"
        )
    if fields.get('mixing_logit') is not None:
        raise InputError(
            f'model.mixing_logit: {fields.mixing_logit} mixes scores; None needed with '
            f'model.energy = {fields.energy!r}'
        )
    return functools.partial(make, parameterize)


def _parameterization(fields: ConfigDict, sde: SDE) -> Parameterization | EnergyParameterization:
    name = fields.parameterization
    with fields_of('model'):
        is_scalar = fields.name in models.ENERGY_NETWORKS
        known = (
            parameterization.SCALAR_ENERGIES if is_scalar else parameterization.PARAMETERIZATIONS
        )
        parameterize = choose(known, name, 'parameterization')
        network = choose(models.MODELS, fields.name, 'name')
    chain = {'ddpm': sde_lib.DDPM, 'smld': sde_lib.SMLD}.get(name)
    if chain and not isinstance(sde, chain):
        raise InputError(f'model.parameterization: {name!r} needs sde.name = {name!r}')
    if not chain and network.integer_labels:
        raise InputError(
            f'model.parameterization: {name!r} gives continuous labels, and {fields.name!r} takes '
            "the levels of a chain, as 'smld' and 'ddpm' give"
        )
    embedding = fields.get('embedding_type')
    is_logarithm = embedding in ('fourier', 'log_positional')
    if chain and is_logarithm:
        raise InputError(
            f'model.embedding_type: {embedding!r} takes the logarithm of a noise level, and '
            f"{name!r} labels start at 0; 'positional' is needed"
        )
    if fields.get('scale_by_sigma') and name not in ('score', 'smld'):
        raise InputError(
            f'model.scale_by_sigma: True needs a network that is told sigma; parameterization '
            f"{name!r} does not, 'score' and 'smld' do"
        )
    if fields.get('scale_by_sigma') and name == 'score' and not is_logarithm:
        raise InputError(
            "model.scale_by_sigma: the sigma of parameterization 'score' is known to networks with "
            "the 'fourier' embedding, or 'log_positional'; others look it up by the level of a "
            "chain, 'smld'"
        )
    if fields.get('input_fourier'):
        if name != 'edm':
            raise InputError(
                f"model.input_fourier: {fields.input_fourier} needs parameterization 'edm', "
                f'not {name!r}'
            )
        return functools.partial(parameterize, input_fourier=fields.input_fourier)
    return parameterize

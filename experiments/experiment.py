"""From a config to the things that training needs: SDE, network, loss, optimiser.

What a config can get wrong about them is found here, before anything compiles. Samplers,
likelihoods and tasks have a file each that does the same (samplers.py, bits_per_dim.py,
conditioning.py).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

import losses
import models
import parameterization
import sde_lib
import time_sampling
import training
from analysis import cost
from analysis.cost import Cost
from choices import InputError, choose
from guidance import classification
from guidance.classification import ClassLogProbs
from parameterization import Network, ScoreFn
from sde_lib import SDE

Params = Any
Batch = dict[str, Array]

# What networks with classes are given for none.
NO_CLASS = -1


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An SDE, a network for the images that it makes, and how images come."""

    sde: SDE
    network: nn.Module
    image_shape: tuple[int, int, int]
    centered: bool
    dequantized: bool
    random_flip: bool

    def augment(self, key: Key[Array, ''], pixels: Array, train: bool) -> Array:
        """The floats of uint8 images; `train` flips."""
        return pixels.augment(
            key,
            pixels,
            random_flip=train and self.random_flip,
            dequantized=self.dequantized,
            centered=self.centered,
        )


@dataclasses.dataclass(frozen=True)
class ScoreModel(Experiment):
    """The network is the score."""

    parameterize: Callable[[SDE, Network], ScoreFn]
    input_channels: int
    num_classes: int

    def init_params(self, key: Key[Array, '']) -> Params:
        """Initial parameters of the network."""
        x = jnp.zeros((1, *self.image_shape[:2], self.input_channels))
        t = jnp.full(1, self.sde.T)
        given = {'classes': jnp.zeros(1, jnp.int32)} if self.num_classes else {}
        return self.network.init(key, x, t, **given)['params']

    def score_fn(
        self, params: Params, classes: Array | None = None, dropout_key: Array | None = None
    ) -> ScoreFn:
        """The network's score; `classes` is one for each image or one for all; a key drops out."""

        def network(x, labels):
            # Networks that know of no classes have no such argument.
            given = {} if classes is None else {'classes': jnp.broadcast_to(classes, x.shape[:1])}
            rngs = None if dropout_key is None else {'dropout': dropout_key}
            train = dropout_key is not None
            return self.network.apply(
                {'params': params}, x, labels, train=train, rngs=rngs, **given
            )

        return self.parameterize(self.sde, network)

    def classes(self, batch: Batch) -> Array | None:
        """The labels of a batch, if the network is given them."""
        return batch['label'] if self.num_classes else None


@dataclasses.dataclass(frozen=True)
class Classifier(Experiment):
    """The network tells classes of noisy images apart; `t_min` is the earliest time of training."""

    t_min: float

    def init_params(self, key: Key[Array, '']) -> Params:
        """Initial parameters of the network."""
        return self.network.init(key, jnp.zeros((1, *self.image_shape)), jnp.ones(1))['params']

    def under(self, sde: SDE) -> 'Classifier':
        """The same network for the noise of another SDE."""
        t_min = sde.time_at_log_snr(self.sde.log_snr(jnp.float32(self.t_min)))
        return dataclasses.replace(self, sde=sde, t_min=float(t_min))

    def class_log_probs(self, params: Params) -> ClassLogProbs:
        """log p(y | x_t) of every class."""

        def network(x, sigma):
            return self.network.apply({'params': params}, x, sigma)

        return classification.class_log_probs(self.sde, network, self.t_min)

    def features(
        self, params: Params, pixels: Array
    ) -> tuple[Float[Array, 'batch dim'], Float[Array, 'batch classes']]:
        """The layer before the logits, and the logits, of uint8 images without noise."""
        x = pixels.to_float(pixels, self.centered)
        # As in classification.class_log_probs: the least noise that the network knows.
        sigma = jnp.exp(-0.5 * self.sde.log_snr(jnp.full(len(x), self.t_min)))
        logits, kept = self.network.apply({'params': params}, x, sigma, mutable=['features'])
        return kept['features']['pooled'][0], logits


def create_experiment(config: ConfigDict) -> ScoreModel | Classifier:
    """Raises InputError for names that do not exist and for fields that do not go together."""
    choose(models.MODELS, config.model.name, 'model.name')
    sde = sde_lib.create(config.sde.name, **plain_fields(config.sde, but=['name']))
    create = _classifier if config.model.name in models.CLASSIFIERS else _score_model
    return create(config, sde)


def _classifier(config: ConfigDict, sde: SDE) -> Classifier:
    for field in SCORE_FIELDS:
        section, _, name = field.partition('.')
        if section in config and (not name or name in config[section]):
            raise InputError(
                f'{field}: {config.model.name!r} is a classifier, to which this means nothing; '
                'configs/base.py has the fields of a classifier'
            )
    for field in ('channel_mean', 'channel_std'):
        values, channels = config.model[field], config.data.channels
        if len(values) not in (0, channels):
            raise InputError(f'model.{field}: {values}, and images have {channels} channels')
    network = models.create(**plain_fields(config.model))
    network.plan(*config.data.image_size)
    check_time('training.t_min', config.training.t_min, sde)
    t_min = or_default(config.training.t_min, sde.t_min)
    return Classifier(sde=sde, network=network, **_image_fields(config.data), t_min=t_min)


# Sections and fields of score models alone.
SCORE_FIELDS = (
    'sampling',
    'task',
    *[f'training.{name}' for name in ('weighting', 'reduce_mean', 'label_dropout')],
    *[f'training.{name}' for name in ('sample_every', 'num_samples')],
    *[f'eval.{name}' for name in ('bpd', 'num_bpd_images', 't_min', 'divergence', 'num_probes')],
    *[f'eval.{name}' for name in ('solver', 'rtol', 'atol', 'per_image_steps')],
    *[f'eval.{name}' for name in ('samplers', 'num_samples')],
    *[f'eval.{name}' for name in ('num_dequantizations', 'importance_weighted')],
    *[f'eval.{name}' for name in ('variational_draws', 'round_trip', 'exhibits')],
    *[f'eval.{name}' for name in ('quality', 'reference', 'max_features', 'extrapolate')],
    *[f'eval.{name}' for name in ('classifier_workdir', 'inception_weights', 'cache_dir')],
)


def _image_fields(data: ConfigDict) -> dict:
    return {
        'image_shape': (*data.image_size, data.channels),
        'centered': data.centered,
        'dequantized': data.dequantize,
        'random_flip': data.random_flip,
    }


def _score_model(config: ConfigDict, sde: SDE) -> ScoreModel:
    parameterize = _parameterization(config.model, sde)
    fields = plain_fields(config.model, but=['parameterization', 'input_fourier'])
    # Discrete SMLD networks divide by a table of the chain's levels.
    for name in ('sigma_min', 'sigma_max', 'num_scales'):
        if isinstance(sde, sde_lib.SMLD):
            fields[name] = getattr(sde, name)
    # Of NCSN, levels are the classes.
    if config.model.name == 'ncsn':
        fields['num_classes'] = sde.num_scales
    input_fourier = config.model.get('input_fourier', ())
    if input_fourier:
        fields['out_channels'] = config.data.channels
    centered = config.data.centered or config.model.parameterization == 'edm'
    network = models.create(**fields, centered=centered)
    network.plan(*config.data.image_size)
    return ScoreModel(
        sde=sde,
        network=network,
        **_image_fields(config.data),
        parameterize=parameterize,
        input_channels=config.data.channels * (1 + 2 * len(input_fourier)),
        num_classes=config.model.get('num_classes', 0),
    )


def create_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The optimiser of config.optim."""
    fields = plain_fields(config.optim, but=['cosine_decay', 'ema_rate', 'ema_warmup'])
    decay_steps = config.training.num_steps if config.optim.cosine_decay else 0
    return training.create_optimizer(decay_steps=decay_steps, **fields)


def create_loss(
    config: ConfigDict, experiment: ScoreModel | Classifier
) -> Callable[[Params, Key[Array, ''], Batch, bool], Float[Array, 'batch']]:
    """`loss(params, key, batch, train) -> [batch]` of uint8 images; `train` flips and drops out."""
    create = _cross_entropy if isinstance(experiment, Classifier) else _score_matching
    objective = create(config.training, experiment)

    def loss(params, key, batch, train):
        key_data, key_loss, key_dropout = jax.random.split(key, 3)
        x0 = experiment.augment(key_data, batch['image'], train)
        return objective(params, key_loss, x0, batch, key_dropout if train else None)

    return loss


def _score_matching(fields: ConfigDict, model: ScoreModel) -> Callable:
    check_time('training.t_min', fields.t_min, model.sde)
    score_matching = losses.create(
        model.sde,
        t_min=or_default(fields.t_min, model.sde.t_min),
        **plain_fields(fields, only=['weighting', 'time_sampler', 'reduce_mean', 'log_sigma']),
    )
    rate = fields.label_dropout
    if rate and not model.num_classes:
        raise InputError(f'training.label_dropout: {rate} needs a network with model.num_classes')

    def objective(params, key, x0, batch, dropout_key):
        classes = model.classes(batch)
        if rate and dropout_key is not None:
            dropout_key, key_labels = jax.random.split(dropout_key)
            dropped = jax.random.bernoulli(key_labels, rate, classes.shape)
            classes = jnp.where(dropped, NO_CLASS, classes)
        score_fn = model.score_fn(params, classes, dropout_key)
        return score_matching(score_fn, key, x0)

    return objective


def _cross_entropy(fields: ConfigDict, model: Classifier) -> Callable:
    cross_entropy = functools.partial(
        classification.cross_entropy,
        sde=model.sde,
        t_min=model.t_min,
        sample_times=time_sampling.create_time_sampler(
            fields.time_sampler, model.sde, fields.log_sigma
        ),
    )

    def objective(params, key, x0, batch, dropout_key):
        del dropout_key  # The network has no dropout.
        return cross_entropy(model.class_log_probs(params), key, x0, batch['label'])

    return objective


def create_class_scores(
    config: ConfigDict, classifier: Classifier
) -> Callable[[Params, Key[Array, ''], Batch], classification.Scores]:
    """`class_scores(params, key, batch) -> [level, batch]`: clean, then at eval.noise_levels."""
    sde, levels = classifier.sde, config.eval.noise_levels
    times = sde.T * jnp.array([0.0, *levels])

    def class_scores(params, key, batch):
        key_noise, key_data = jax.random.split(key)
        log_probs = classifier.class_log_probs(params)
        x0 = classifier.augment(key_data, batch['image'], False)

        def scores(t):
            t = jnp.full(len(x0), t)
            noise = jax.random.normal(key_noise, x0.shape)
            x = jnp.where(t[0] > 0, sde.perturb(x0, t, noise), x0)
            return classification.scores(log_probs, batch['label'], x, t)

        return jax.lax.map(scores, times)

    return class_scores


def create_cost(config: ConfigDict, experiment: ScoreModel | Classifier, num_devices: int) -> Cost:
    """What training costs on so many devices, from shapes alone."""
    loss, optimizer = create_loss(config, experiment), create_optimizer(config)
    batch_size = config.training.batch_size
    key = jax.eval_shape(jax.random.key, 0)
    # Initialisation is one forward pass of one image; tracing takes long enough.
    forward_flops, params = cost.flops_and_shape(experiment.init_params, key)
    return Cost(
        state=jax.eval_shape(lambda params: training.create_state(params, optimizer), params),
        forward_flops=forward_flops,
        step=cost.training_step(
            lambda params, key, batch: loss(params, key, batch, True).mean(),
            params,
            key,
            batch_shapes(experiment, batch_size),
        ),
        batch_size=batch_size,
        num_devices=num_devices,
    )


def batch_shapes(experiment: Experiment, size: int) -> Batch:
    """What datasets.batches yields."""
    return {
        'image': jax.ShapeDtypeStruct((size, *experiment.image_shape), jnp.uint8),
        'label': jax.ShapeDtypeStruct((size,), jnp.int32),
    }


def _parameterization(fields: ConfigDict, sde: SDE) -> Callable[[SDE, Network], ScoreFn]:
    name = fields.parameterization
    parameterize = choose(parameterization.PARAMETERIZATIONS, name, 'model.parameterization')
    chain = {'ddpm': sde_lib.DDPM, 'smld': sde_lib.SMLD}.get(name)
    if chain and not isinstance(sde, chain):
        raise InputError(f'model.parameterization: {name!r} needs sde.name = {name!r}')
    if not chain and choose(models.MODELS, fields.name, 'model.name').integer_labels:
        raise InputError(
            f'model.parameterization: {name!r} gives continuous labels, and {fields.name!r} takes '
            "the levels of a chain, as 'smld' and 'ddpm' give"
        )
    fourier = fields.get('embedding_type') == 'fourier'
    if chain and fourier:
        raise InputError(
            f"model.embedding_type: 'fourier' takes the logarithm of a noise level, and {name!r} "
            "labels start at 0; 'positional' is needed"
        )
    if fields.get('scale_by_sigma') and name not in ('score', 'smld'):
        raise InputError(
            f'model.scale_by_sigma: True needs a network that is told sigma; parameterization '
            f"{name!r} does not, 'score' and 'smld' do"
        )
    if fields.get('scale_by_sigma') and name == 'score' and not fourier:
        raise InputError(
            "model.scale_by_sigma: the sigma of parameterization 'score' is known to networks with "
            "the 'fourier' embedding; others look it up by the level of a chain, 'smld'"
        )
    if fields.get('input_fourier'):
        if name != 'edm':
            raise InputError(
                f"model.input_fourier: {fields.input_fourier} needs parameterization 'edm', "
                f'not {name!r}'
            )
        return functools.partial(parameterize, input_fourier=fields.input_fourier)
    return parameterize


def plain_fields(fields: ConfigDict, but: list[str] = (), only: list[str] | None = None) -> dict:
    """The fields that are not None, as plain values."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None and name not in but and (only is None or name in only)
    }


def check_time(field: str, t: float | None, sde: SDE, without_noise: bool = False) -> None:
    """Raises InputError for a time that is not before T, or, unless allowed, without noise."""
    if t is None:
        return
    if not t < sde.T:
        raise InputError(
            f'{field}: {t}, and the last time of the SDE is {sde.T:g}; below it needed'
        )
    if not (without_noise or sde.sigma(jnp.float32(t)) > 0):
        raise InputError(f"{field}: {t}, where there is no noise; a later time, or None: the SDE's")


def or_default(value: float | None, default: float) -> float:
    """The value of a field that may be None."""
    return default if value is None else value

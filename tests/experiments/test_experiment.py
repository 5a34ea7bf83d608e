"""Every network in an experiment: what goes together gives a score, and the rest is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from choices import InputError
from experiments import kinds
from tests import tiny_config

NETWORKS = {
    'ncsnpp': {'nf': 8, 'ch_mult': (1, 1), 'attn_resolutions': ()},
    'ddpm': {'nf': 4, 'ch_mult': (1, 1), 'attn_resolutions': (), 'normalization': 'InstanceNorm'},
    'ncsnv2_64': {'nf': 4},
    'ncsnv2_128': {'nf': 4},
    'ncsnv2_256': {'nf': 4},
    'ncsn': {'nf': 4},
}
LEVELS = {'name': 'smld', 'num_scales': 10, 'sigma_max': 1.0}


def create(name, parameterization, sde, **fields):
    config = tiny_config.get_config()
    config.sde.update(sde)
    config.training.weighting = 'sigma2'
    config.training.time_sampler = 'levels' if 'num_scales' in sde else 'uniform'
    config.model = ConfigDict(
        {'name': name, 'parameterization': parameterization, **NETWORKS[name], **fields}
    )
    return config, kinds.create(config).model


def check_loss(config):
    """Its shape, which no compilation is needed for."""
    experiment = kinds.create(config)

    def loss(key, batch):
        return experiment.loss(experiment.init(key).params, key, batch, True)

    value = jax.eval_shape(loss, jax.random.key(0), experiment.batch_shapes(2))
    assert value.shape == (2,)
    assert value.dtype == jnp.float32


@pytest.mark.parametrize(
    ('name', 'parameterization', 'sde', 'fields'),
    [
        *((name, 'smld', LEVELS, {'scale_by_sigma': True}) for name in NETWORKS),
        ('ncsnv2_64', 'ddpm', {'name': 'ddpm', 'num_scales': 40}, {'scale_by_sigma': False}),
        *(('ddpm', name, {'name': 'vp'}, {}) for name in ('noise', 'edm')),
        ('ddpm', 'ddpm', {'name': 'ddpm', 'num_scales': 40}, {'conditional': False}),
        ('ddpm', 'edm', {'name': 've'}, {'dtype': 'bfloat16', 'remat': True}),
        ('ncsnpp', 'edm', {'name': 'vp'}, {'dtype': 'bfloat16', 'remat': True, 'num_classes': 3}),
    ],
)
def test_every_network_has_a_loss(name, parameterization, sde, fields):
    config, model = create(name, parameterization, sde, **fields)
    check_loss(config)
    if 'num_scales' in sde and parameterization == 'smld':
        assert (model.network.num_scales, model.network.sigma_max) == (10, 1.0)


@pytest.mark.parametrize(
    ('name', 'parameterization', 'sde'),
    [('ncsnpp', 'edm', {'name': 'vp'}), ('ncsnv2_64', 'smld', LEVELS)],
)
def test_every_network_may_be_a_share_of_the_score(name, parameterization, sde):
    """Whose logit, one for each channel, is a parameter like others."""
    config, _ = create(name, parameterization, sde, mixing_logit=-3.0)
    check_loss(config)
    params = kinds.create(config).init(jax.random.key(0)).params
    np.testing.assert_array_equal(params['mixing_logit'], [-3.0])


@pytest.mark.slow
def test_the_share_of_the_network_is_trained():
    config, model = create('ncsnpp', 'edm', {'name': 'vp'}, mixing_logit=-3.0)
    experiment = kinds.create(config)
    state = experiment.init(jax.random.key(0))
    batch = {'image': jnp.full((2, 8, 8, 1), 200, jnp.uint8), 'label': jnp.zeros(2, jnp.int32)}
    after, _ = jax.jit(experiment.step)(state, batch)
    after, _ = jax.jit(experiment.step)(after, batch)  # The first has a learning rate of 0.
    assert after.params['mixing_logit'] != -3
    assert after.averages['ema']['mixing_logit'] != -3
    # Without a share it has no part in the score.
    x, t = jnp.ones((2, 8, 8, 1)), jnp.full(2, 0.5)
    alone = {**state.params, 'mixing_logit': jnp.full(1, -jnp.inf)}
    np.testing.assert_array_equal(model.process(alone).score(x, t), -x)


def test_the_levels_of_ncsn_are_not_classes_of_images():
    model = create('ncsn', 'smld', LEVELS)[1]
    assert (model.num_classes, model.network.num_classes) == (0, 10)
    assert create('ncsnpp', 'smld', LEVELS, num_classes=10)[1].num_classes == 10


@pytest.mark.parametrize('name', ['ncsn', 'ncsnv2_64', 'ncsnv2_128', 'ncsnv2_256'])
@pytest.mark.parametrize(
    ('parameterization', 'sde'), [('edm', 'vp'), ('noise', 'vp'), ('score', 've')]
)
def test_continuous_labels_are_refused_by_networks_of_levels(name, parameterization, sde):
    message = f"model.parameterization: '{parameterization}' gives continuous.*'{name}' takes"
    with pytest.raises(InputError, match=message):
        create(name, parameterization, {'name': sde})


@pytest.mark.parametrize(
    ('name', 'parameterization', 'sde', 'fields', 'message'),
    [
        ('ddpm', 'score', {'name': 've'}, {'scale_by_sigma': True}, "'fourier' embedding"),
        ('ddpm', 'noise', {'name': 'vp'}, {'scale_by_sigma': True}, 'told sigma'),
        ('ddpm', 'noise', {'name': 'vp'}, {'ch_mult': (1,) * 5}, 'multiples of 16.*8x8'),
        ('ncsnpp', 'noise', {'name': 'vp'}, {'dtype': 'half'}, "dtype: unknown name 'half'"),
    ],
)
def test_what_does_not_go_together_is_refused(name, parameterization, sde, fields, message):
    with pytest.raises(InputError, match=message):
        create(name, parameterization, sde, **fields)

"""From config.sampling to samplers: every method on networks, and what is refused."""

import jax
import jax.numpy as jnp
import pytest

from choices import InputError
from experiments import samplers
from tests.experiments.test_experiment import create


@pytest.mark.parametrize('num_classes', [0, 3])
@pytest.mark.parametrize('method', samplers.METHODS)
def test_every_method_draws_images_from_networks(method, num_classes):
    config, built = create('ncsnpp', 'noise', {'name': 'vp'}, num_classes=num_classes)
    config.sampling.steps = 5
    sample = samplers.create_sampler(config, built, method)
    params = jax.eval_shape(built.init_params, jax.random.key(0))
    drawn = jax.eval_shape(sample, params, jax.random.key(1), jnp.arange(4))
    assert drawn.x.shape == (4, *built.image_shape)
    assert drawn.nfe.shape == (4,)
    assert (drawn.rounds is None) == (method != 'picard')


@pytest.mark.parametrize(
    ('method', 'fields', 'message'),
    [
        ('ode', {'solver': 'tsit'}, "sampling.solver: unknown name 'tsit'.*tsit5"),
        ('ode', {'solver': 'euler'}, "sampling.solver: 'euler' estimates no error"),
        (
            'ode',
            {'solver': 'kvaerno5', 'per_image_steps': False},
            "sampling.solver: 'kvaerno5' is implicit",
        ),
        ('sde', {'sde_solver': 'sea'}, "sampling.sde_solver: 'sea' estimates no error"),
        ('picard', {'corrector': 'langevin'}, 'sampling.method: picard takes a predictor and no'),
    ],
)
def test_what_a_method_cannot_do_is_refused(method, fields, message):
    config, built = create('ddpm', 'noise', {'name': 'vp'})
    config.sampling.update(fields)
    with pytest.raises(InputError, match=message):
        samplers.create_sampler(config, built, method)


def test_one_step_size_for_a_batch_is_not_for_images_drawn_one_by_one():
    config, built = create('ncsnpp', 'noise', {'name': 'vp'}, num_classes=3)
    config.sampling.per_image_steps = False
    with pytest.raises(InputError, match='sampling.per_image_steps: False is not for class-cond'):
        samplers.create_sampler(config, built, 'ode')

"""From config.sampling to samplers: every method on networks, and what is refused."""

import jax
import jax.numpy as jnp
import pytest

import sampling
import sde_lib
from choices import InputError
from configs import base
from experiments import image_drawing
from tests.experiments.test_experiment import create


@pytest.mark.parametrize('num_classes', [0, 3])
@pytest.mark.parametrize('method', sampling.METHODS)
def test_every_method_draws_images_from_networks(method, num_classes):
    config, model = create('ncsnpp', 'noise', {'name': 'vp'}, num_classes=num_classes)
    config.sampling.steps = 5
    sampler = image_drawing.create_sampler(config, model.sde, method)
    params = jax.eval_shape(model.init_params, jax.random.key(0))

    def draw(params, indices):
        return image_drawing.draw_images(model, sampler, params, jax.random.key(1), indices)

    drawn = jax.eval_shape(draw, params, jnp.arange(4))
    assert drawn['pixels'].shape == (4, *model.image_shape)
    assert drawn['pixels'].dtype == jnp.uint8
    assert drawn['nfe'].shape == (4,)


def test_a_drawing_is_what_the_config_says_in_8_bits():
    config, model = create('ncsnpp', 'noise', {'name': 'vp'})
    config.sampling.update({'steps': 5, 'num_samples': 7, 'batch_size': 3})
    drawing = image_drawing.create_drawing(config, model, 'heun')
    assert (drawing.name, drawing.num, drawing.batch_size) == ('heun', 7, 3)
    params = jax.eval_shape(model.init_params, jax.random.key(0))
    drawn = jax.eval_shape(drawing.draw, params, jax.random.key(1), jnp.arange(3), drawing.given)
    assert {name: (a.shape, a.dtype) for name, a in drawn.items()} == {
        'pixels': ((3, *model.image_shape), jnp.uint8),
        'nfe': ((3,), jnp.int32),
        'is_done': ((3,), bool),
        't_last': ((3,), jnp.float32),
        'steps': ((3,), jnp.int32),
        'is_finite': ((3,), bool),
    }


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
        ('picard', {'corrector': 'langevin'}, "sampling.corrector: 'langevin'; of picard 'none'"),
        ('picard', {'predictor': 'none'}, "sampling.predictor: 'none'; picard needs one"),
        ('pc', {'predictor': 'none'}, "sampling.predictor: 'none', and so is the corrector"),
        ('heun', {'grid': 'straight'}, "sampling.grid: unknown name 'straight'"),
        (
            'pc',
            {'predictor': 'none', 'corrector': 'langevin', 'eta': 0.5},
            "sampling.eta: 0.5, and the predictor, which has it, is 'none'",
        ),
        ('heun', {'t_min': 0.0}, 'sampling.t_min: 0.0, where there is no noise'),
        ('heun', {'t_min': 1.0}, 'sampling.t_min: 1.0, and the last time of the SDE is 1'),
    ],
)
def test_what_a_method_cannot_do_is_refused(method, fields, message):
    config, model = create('ddpm', 'noise', {'name': 'vp'})
    config.sampling.update(fields)
    with pytest.raises(InputError, match=message):
        image_drawing.create_sampler(config, model.sde, method)


@pytest.mark.parametrize('field', ['per_image_steps', 'batch_mean_norm'])
def test_what_makes_images_depend_on_each_other_is_not_for_images_drawn_one_by_one(field):
    config, model = create('ncsnpp', 'noise', {'name': 'vp'}, num_classes=3)
    value = field == 'batch_mean_norm'
    config.sampling[field] = value
    with pytest.raises(InputError, match=f'sampling.{field}: {value} is not for class-cond'):
        image_drawing.create_drawing(config, model, 'ode')


# Every field that is declared for a method, and no other

SDE = sde_lib.VP()
# Names of fields that methods have of their own, and values that are not the default.
OTHER = {
    'steps': 7,
    'grid': 'log_snr',
    'predictor': 'ancestral',
    'eta': 0.3,
    'corrector': 'langevin',
    'corrector_steps': 3,
    'snr': 0.3,
    'batch_mean_norm': True,
    'churn': 3.0,
    'churn_min': 0.1,
    'churn_max': 0.7,
    'noise_scale': 1.1,
    'window': 7,
    'picard_tolerance': 0.3,
    'solver': 'dopri5',
    'per_image_steps': False,
    'sde_solver': 'heun',
    'adaptive': False,
    'sde_rtol': 0.3,
    'sde_atol': 0.3,
    'rtol': 0.3,
    'atol': 0.3,
}
OF_ALL = {'t_min': 1e-3, 'denoise': False, 'temperature': 0.5}
# Choices that methods have, on which some fields depend.
CHOICES = [
    *((method, {}) for method in sampling.METHODS),
    *((method, {'adaptive': False}) for method in ('ode', 'sde')),
    *(('pc', {'corrector': corrector}) for corrector in ('langevin', 'annealed_langevin')),
]


def fields_with(**values):
    """The section config.sampling with these values."""
    config = base.get_config()
    config.sampling.update(values)
    return config


def own_names(method, choice):
    """The fields that exist for a method, and for what is chosen, whatever their values."""
    config = fields_with(**{**OTHER, 'adaptive': True, 'corrector': 'none', **choice})
    return set(image_drawing.own_fields(config.sampling, method))


@pytest.mark.parametrize(
    ('method', 'choice', 'field'),
    [
        (method, choice, field)
        for method, choice in CHOICES
        for field in sorted(own_names(method, choice) | set(OF_ALL))
        # Which has no corrector, and says so.
        if (method, field) != ('picard', 'corrector')
    ],
    ids=str,
)
def test_every_field_of_a_method_changes_its_sampler(method, choice, field):
    """The text of a sampler names parts of an evaluation, which are found again by it alone."""
    config = fields_with(**choice)
    before, again = (image_drawing.create_sampler(config, SDE, method) for _ in range(2))
    value = OF_ALL[field] if field in OF_ALL else OTHER[field]
    # Of what is chosen already, back to the default.
    config.sampling[field] = base.get_config().sampling[field] if field in choice else value
    assert repr(image_drawing.create_sampler(config, SDE, method)) != repr(before) == repr(again)
    assert ' at 0x' not in repr(before)


def test_every_field_of_sampling_is_one_of_all_methods_or_of_some():
    of_drawing = {'method', 'num_samples', 'batch_size', 'seed'}
    assert set(base.sampling()) == set(OTHER) | set(OF_ALL) | of_drawing
    declared = set().union(*(own_names(*choice) for choice in CHOICES))
    assert declared == set(OTHER)


def argument(field):
    return image_drawing.ARGUMENTS.get(field, field)


# Every sampler has a grid, for the states on its way: of these it makes no steps.
OF_TRAJECTORIES = {argument('steps'), argument('grid')}
# Another name is that of this method with the argument.
NAMED = {'dpmpp_2m': {'eta'}}


@pytest.mark.parametrize('method', sampling.METHODS)
def test_no_method_takes_a_field_that_is_not_declared_for_it(method):
    declared = set().union(*(own_names(*choice) for choice in CHOICES if choice[0] == method))
    taken = {argument(field) for field in declared} | OF_TRAJECTORIES | NAMED.get(method, set())
    for field, value in OTHER.items():
        if argument(field) not in taken:
            with pytest.raises(TypeError):
                sampling.create(method, **{argument(field): value})
    with pytest.raises(TypeError):
        sampling.create(method, nonsense=1)


def test_without_a_corrector_none_of_its_fields_is_taken():
    with pytest.raises(TypeError):
        sampling.create('pc', corrector='none', snr=0.1)

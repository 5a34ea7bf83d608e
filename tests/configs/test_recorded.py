"""Configs that workdirs have recorded: values of today's types, for every field of every kind."""

import json

import pytest

from choices import InputError
from configs import recorded
from tests import tiny_classifier, tiny_config


def written(path, values):
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize('config', [tiny_config, tiny_classifier])
def test_what_is_recorded_is_what_was_trained_with(config, tmp_path):
    given = config.get_config()
    found = recorded.read(written(tmp_path / 'config.json', given.to_dict()))
    assert found.to_dict() == given.to_dict()
    for section, fields in given.items():
        for name in fields if hasattr(fields, 'items') else ():
            assert found[section].get_type(name) is fields.get_type(name), f'{section}.{name}'


def test_values_become_those_of_the_declared_types(tmp_path):
    """JSON knows no tuples, and whoever wrote a config file may have left out the decimal point."""
    values = tiny_config.get_config().to_dict()
    values['optim']['lr'] = 1
    found = recorded.read(written(tmp_path / 'config.json', values))
    assert (found.optim.lr, type(found.optim.lr)) == (1.0, float)
    assert found.data.image_size == (8, 8)
    found.sampling.t_min = 0.5
    with pytest.raises(TypeError):
        found.sampling.t_min = 'late'


def test_a_field_that_is_newer_than_the_run_has_its_default(tmp_path):
    values = tiny_config.get_config().to_dict()
    del values['data']['crop_size'], values['debug'], values['experiment']
    found = recorded.read(written(tmp_path / 'config.json', values))
    assert found.to_dict() == tiny_config.get_config().to_dict()


def test_a_config_of_an_unknown_network_is_refused_with_its_file(tmp_path):
    path = written(tmp_path / 'config.json', {'model': {'name': 'unet'}})
    with pytest.raises(InputError, match=f"^{path}: model.name: unknown name 'unet'; known"):
        recorded.read(path)

"""The command line, before its flags are read."""

import pytest

import command_line
from choices import InputError


def test_a_config_comes_before_its_fields():
    given = ['main.py', '--config.seed=1', '--mode=train', '--config=a.py', '--config.optim.lr=2']
    wanted = ['main.py', '--config=a.py', '--config.seed=1', '--mode=train', '--config.optim.lr=2']
    assert command_line.with_config(given) == wanted


def test_a_workdir_knows_its_config(tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    given = ['main.py', '--config.seed=1', f'--workdir={tmp_path}']
    found = command_line.with_config(given)
    assert found == ['main.py', f'--config={tmp_path}/config.json', *given[1:]]
    assert command_line.is_recorded(found[1])


def test_a_workdir_without_a_config_is_refused(tmp_path):
    with pytest.raises(InputError, match='has no config.json to take'):
        command_line.with_config(['main.py', '--workdir', str(tmp_path)])


def test_without_a_workdir_nothing_is_added():
    assert command_line.with_config(['main.py', '--mode=cost']) == ['main.py', '--mode=cost']

"""The config of a workdir, and which of its fields may change."""

import pytest

from choices import InputError
from storage import workdirs

CONFIG = {'model': {'nf': 16}, 'training': {'num_steps': 10}, 'sampling': {'steps': 5}}


def changed(section, **fields):
    return {**CONFIG, section: {**CONFIG[section], **fields}}


def test_what_a_run_was_trained_with_stays(tmp_path):
    workdirs.claim(tmp_path, CONFIG)
    with pytest.raises(InputError, match='model.nf: 32, but .* was trained with 16'):
        workdirs.check_same_run(tmp_path, changed('model', nf=32))


def test_sampling_may_change(tmp_path):
    workdirs.claim(tmp_path, CONFIG)
    workdirs.check_same_run(tmp_path, changed('sampling', steps=50))


def test_a_field_that_is_newer_than_the_run_is_no_change(tmp_path):
    workdirs.claim(tmp_path, CONFIG)
    workdirs.check_same_run(tmp_path, changed('training', label_dropout=0.1))

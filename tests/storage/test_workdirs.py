"""The config of a workdir, and which of its fields may change."""

import pytest

from choices import InputError
from storage import workdirs


def is_fixed(field):
    return not field.startswith('sampling.')


CONFIG = {'model': {'nf': 16}, 'training': {'num_steps': 10}, 'sampling': {'steps': 5}}


def changed(section, **fields):
    return {**CONFIG, section: {**CONFIG[section], **fields}}


def test_what_a_run_was_trained_with_stays(tmp_path):
    workdirs.claim(tmp_path, CONFIG, is_fixed)
    with pytest.raises(InputError, match=f'^model.nf: 32, but trained with 16; {tmp_path} keeps'):
        workdirs.check_same_run(tmp_path, changed('model', nf=32), is_fixed)


def test_all_fields_that_differ_are_named_at_once(tmp_path):
    workdirs.claim(tmp_path, CONFIG, is_fixed)
    now = {'model': {'nf': 32}, 'training': {'num_steps': 5}, 'sampling': {'steps': 1}}
    both = 'model.nf: 32, but trained with 16; training.num_steps: 5, but trained with 10; '
    with pytest.raises(InputError, match=both) as refused:
        workdirs.check_same_run(tmp_path, now, is_fixed)
    assert 'sampling' not in str(refused.value)


def test_sampling_may_change(tmp_path):
    workdirs.claim(tmp_path, CONFIG, is_fixed)
    workdirs.check_same_run(tmp_path, changed('sampling', steps=50), is_fixed)


def test_a_field_that_is_newer_than_the_run_is_no_change(tmp_path):
    workdirs.claim(tmp_path, CONFIG, is_fixed)
    workdirs.check_same_run(tmp_path, changed('training', label_dropout=0.1), is_fixed)


def test_the_last_command_that_claims_a_workdir_is_what_its_config_says(tmp_path):
    now = changed('sampling', steps=50)
    for config in (CONFIG, now):
        workdirs.claim(tmp_path / 'new', config, is_fixed)
    assert workdirs.read_config(tmp_path / 'new') == now


def test_a_workdir_of_another_run_stays_as_it_was(tmp_path):
    workdirs.claim(tmp_path, CONFIG, is_fixed)
    with pytest.raises(InputError, match='trained with 16'):
        workdirs.claim(tmp_path, changed('model', nf=32), is_fixed)
    assert workdirs.read_config(tmp_path) == CONFIG


def test_a_fixed_field_that_is_gone_is_a_change(tmp_path):
    workdirs.claim(tmp_path, changed('model', blocks=2), is_fixed)
    with pytest.raises(InputError, match='model.blocks: None, but trained with 2'):
        workdirs.check_same_run(tmp_path, CONFIG, is_fixed)


def test_a_directory_without_a_config_is_no_run(tmp_path):
    assert workdirs.read_config(tmp_path) is None
    with pytest.raises(InputError, match='--workdir: .* has no config.json; train there first'):
        workdirs.check_same_run(tmp_path, CONFIG, is_fixed)


def test_tuples_and_the_lists_that_they_are_in_a_file_are_the_same(tmp_path):
    config = changed('model', ch_mult=(1, 2))
    workdirs.claim(tmp_path, config, is_fixed)
    workdirs.check_same_run(tmp_path, config, is_fixed)


def split(examples, fingerprint):
    return {'examples': examples, 'fingerprint': fingerprint}


def test_other_data_in_the_same_place_are_told(tmp_path):
    began_with = {'train': split(53, 'a'), 'test': split(7, 'b')}
    assert workdirs.keep_data(tmp_path, False, False, began_with) == []
    assert workdirs.keep_data(tmp_path, True, False, began_with) == []
    more = {'train': split(54, 'c'), 'test': split(7, 'b')}
    (line,) = workdirs.keep_data(tmp_path, True, False, more)
    assert line == (
        f'{tmp_path}: the train split has 54 examples, and had 53 when training began; not all of '
        'them are the same'
    )
    assert workdirs.keep_data(tmp_path, True, False, {'test': split(7, 'd')})
    # Before the first checkpoint it begins again.
    assert workdirs.keep_data(tmp_path, False, False, {'test': split(7, 'd')}) == []
    assert workdirs.keep_data(tmp_path, True, False, {'test': split(7, 'd')}) == []


def test_data_that_have_moved_have_to_be_the_same(tmp_path):
    began_with = {'train': split(53, 'a'), 'test': split(7, 'b')}
    assert workdirs.keep_data(tmp_path, False, True, began_with) == []
    assert workdirs.keep_data(tmp_path, True, True, began_with) == []
    others = {'train': split(54, 'c'), 'test': split(7, 'd')}
    with pytest.raises(InputError) as refused:
        workdirs.keep_data(tmp_path, True, True, others)
    for num, before in ((54, 53), (7, 7)):
        assert f'split has {num} examples, and had {before} when training' in str(refused.value)
    assert f'--config.training.init_from={tmp_path}' in str(refused.value)
    assert workdirs.keep_data(tmp_path, True, True, began_with) == []


def test_what_another_version_does_not_know_of_data_is_no_difference(tmp_path):
    before, now = split(53, 'a'), {**split(53, 'a'), 'classes': ['cats', 'dogs']}
    for first, second in ((before, now), (now, before)):
        workdirs.keep_data(tmp_path, False, False, {'train': first})
        assert workdirs.other_data(tmp_path, 'train', second) is None
    assert workdirs.other_data(tmp_path, 'validation', now) is None
    assert workdirs.other_data(tmp_path, 'train', {**now, 'classes': ['dogs', 'cats']})


def test_a_run_of_whose_data_nothing_is_known_is_told_so_once(tmp_path):
    """One of an older version, or one that was imported."""
    today = {'train': split(1, 'a')}
    assert workdirs.other_data(tmp_path, 'train', today['train']) is None
    (line,) = workdirs.keep_data(tmp_path, True, True, today)
    assert 'no data.json' in line
    assert workdirs.keep_data(tmp_path, True, True, today) == []
    assert workdirs.other_data(tmp_path, 'train', split(1, 'b'))


def test_classes_are_kept_with_the_data(tmp_path):
    data, classes = {'train': split(2, 'a')}, {'names': ['cat', 'dog'], 'counts': [1, 1]}
    assert workdirs.read_classes(tmp_path) is None
    assert workdirs.keep_data(tmp_path, False, False, data, classes) == []
    assert workdirs.read_classes(tmp_path) == classes
    # Of the data that training began with.
    assert workdirs.keep_data(tmp_path, True, False, data, {'names': ['owl'], 'counts': [2]}) == []
    assert workdirs.read_classes(tmp_path) == classes


def test_a_run_of_an_older_version_gets_the_classes_of_today(tmp_path):
    workdirs.keep_data(tmp_path, False, False, {'train': split(2, 'a')})
    classes = {'names': ['cat'], 'counts': [2]}
    assert workdirs.keep_data(tmp_path, True, False, {'train': split(2, 'a')}, classes) == []
    assert workdirs.read_classes(tmp_path) == classes
    assert workdirs.keep_data(tmp_path, True, False, {'train': split(3, 'b')}, classes)


def test_damaged_knowledge_of_classes_is_named(tmp_path):
    (tmp_path / 'data.json').write_text('{"classes": 3}')
    with pytest.raises(InputError, match="data.json is damaged: 'classes' is 3, and no JSON obje"):
        workdirs.read_classes(tmp_path)


@pytest.mark.parametrize('content', ['', '{"train": ', '[]'])
def test_damaged_knowledge_of_data_is_named(content, tmp_path):
    (tmp_path / 'data.json').write_text(content)
    with pytest.raises(InputError, match=r'data.json is (cut short or )?damaged'):
        workdirs.keep_data(tmp_path, True, False, {'train': split(1, 'a')})

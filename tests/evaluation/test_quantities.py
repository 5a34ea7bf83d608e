"""Numbers as data: their labels, their files, and which of them is best."""

import json

import numpy as np
import pytest

from choices import InputError
from evaluation import quantities
from evaluation.quantities import HIGHER, LOWER, Quantity

FOUND = [
    Quantity('test_loss', 0.25, 0.01, LOWER),
    Quantity('nfe', 12.0, better=LOWER, of='pc'),
    Quantity('fd', 3.5, None, LOWER, of='pc', by='classifier'),
    Quantity('fd_images', 1024, of='pc', by='classifier'),
    Quantity('accuracy', 0.75, better=HIGHER, of='clean'),
]


def test_a_label_says_of_what_what_and_by_what():
    assert [quantity.label for quantity in FOUND] == [
        'test_loss',
        'pc_nfe',
        'pc_fd_classifier',
        'pc_fd_images_classifier',
        'clean_accuracy',
    ]


def test_a_mean_has_its_standard_error():
    values = np.float32([1, 2, 3, 6])
    found = quantities.mean('loss', values, better=LOWER)
    assert found == Quantity('loss', 3.0, pytest.approx(np.sqrt(14 / 3) / 2), LOWER)


def test_the_error_of_one_value_is_not_known():
    assert quantities.mean('loss', np.float32([2])) == Quantity('loss', 2.0)


def test_a_mean_of_many_float32_numbers_is_taken_in_float64():
    values = np.full(10**7, 0.1, np.float32)
    assert quantities.mean('loss', values).value == pytest.approx(float(np.float32(0.1)), rel=1e-9)


# Files


def test_what_is_written_is_read(tmp_path):
    quantities.write(tmp_path / 'metrics.json', 7, FOUND)
    assert quantities.read(tmp_path / 'metrics.json') == FOUND
    assert json.loads((tmp_path / 'metrics.json').read_text())['step'] == 7


def test_numbers_of_numpy_and_jax_are_written(tmp_path):
    quantities.write(tmp_path / 'a.json', 7, [Quantity('a', np.float32(0.5), np.float64(0.25))])
    assert quantities.read(tmp_path / 'a.json') == [Quantity('a', 0.5, 0.25)]


def test_files_have_no_numbers_that_are_not_finite(tmp_path):
    given = [Quantity('a', float('nan'), of='pc'), Quantity('b', 1.0, float('nan')), *FOUND]
    found, others = quantities.finite(given)
    assert others == ['pc_a']
    quantities.write(tmp_path / 'a.json', 7, found)
    assert quantities.read(tmp_path / 'a.json') == [Quantity('b', 1.0), *FOUND]
    assert 'NaN' not in (tmp_path / 'a.json').read_text()


def test_files_of_before_are_read_by_their_names_alone(tmp_path):
    """They were dictionaries, with the step among the numbers."""
    path = tmp_path / 'metrics.json'
    path.write_text(json.dumps({'step': 7, 'test_loss': 0.25, 'pc_fd_classifier': 3.5}))
    assert quantities.read(path) == [Quantity('test_loss', 0.25), Quantity('pc_fd_classifier', 3.5)]


# For people


def test_a_table_has_a_line_for_each_with_what_is_known_of_its_error():
    lines = quantities.table(FOUND).splitlines()
    assert len(lines) == len(FOUND)
    assert lines[0] == 'test_loss                0.25 ± 0.01'
    assert lines[3] == 'pc_fd_images_classifier  1,024'
    assert quantities.table([]) == ''


@pytest.mark.parametrize(('better', 'step'), [(LOWER, 2), (HIGHER, 1)])
def test_the_best_is_the_lowest_or_the_highest_as_the_quantity_says(better, step):
    found = {n: [Quantity('recall', 1 / n, better=better, of='pc', by='net')] for n in (1, 2)}
    said = quantities.best(found, 'pc_recall_net')
    assert said == f'Best by pc_recall_net: step {step}, {1 / step:.4g}'


def test_the_best_is_of_the_checkpoints_that_have_it():
    found = {1: [], 2: [Quantity('a', 1.0, better=LOWER)]}
    assert quantities.best(found, 'a') == 'Best by a: step 2, 1'


@pytest.mark.parametrize('label', ['fid', 'pc_fd_images_classifier'])
def test_what_was_not_measured_or_is_better_neither_way_is_no_reason_to_be_best(label):
    known = 'clean_accuracy, pc_fd_classifier, pc_nfe, test_loss'
    with pytest.raises(
        InputError, match=f"^eval.best_by: nothing .*'{label}'.* there are: {known}"
    ):
        quantities.best({1: FOUND}, label)

"""Images by seeds: which are drawn, and that each is the same whatever is drawn with it."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from choices import InputError
from devices import sharding
from evaluation.batchwise import Draws
from experiments import images_by_seed
from tests.evaluation import test_batchwise

PARAMS = {'scale': jnp.float32(3)}


def draws(num, batch_size=4):
    mesh = sharding.create_mesh()
    return Draws('pc', test_batchwise.draw, num, batch_size, test_batchwise.SEED, mesh)


def write(directory, seeds, batch_size=4, settings='these'):
    return images_by_seed.write(draws(len(seeds), batch_size), PARAMS, seeds, directory, settings)


def pixels(directory):
    return {path.name: np.array(Image.open(path)) for path in sorted(directory.glob('*.png'))}


@pytest.mark.parametrize(
    ('text', 'seeds'),
    [('7', [7]), ('0-3', [0, 1, 2, 3]), ('5,1-2,2', [1, 2, 5]), ('0 - 1', None), ('1, 3', [1, 3])],
)
def test_seeds_are_numbers_and_ranges(text, seeds):
    if seeds is None:
        with pytest.raises(InputError, match="^--seeds: '0 - 1'; numbers and ranges needed"):
            images_by_seed.parse(text)
    else:
        assert images_by_seed.parse(text) == seeds


def test_more_seeds_than_can_be_drawn_at_a_time_are_refused():
    """Before they are made."""
    assert len(images_by_seed.parse('0-999999')) == 1_000_000
    for text, num in (('0-2147483646', '2,147,483,647'), ('0-999999,7', '1,000,001')):
        with pytest.raises(InputError, match=f'^--seeds: {num} images; at most 1,000,000 are dr'):
            images_by_seed.parse(text)


def test_an_image_is_that_of_its_seed_in_every_batch(tmp_path):
    together = draws(8)(PARAMS).pixels
    write(tmp_path / 'a', [0, 2, 3, 5, 7], batch_size=2)
    found = pixels(tmp_path / 'a')
    assert list(found) == [f'{seed:06d}.png' for seed in (0, 2, 3, 5, 7)]
    for name, image in found.items():
        np.testing.assert_array_equal(image, together[int(name[:6]), ..., 0])


def test_images_that_are_there_are_not_drawn_again(tmp_path):
    assert write(tmp_path, [0, 1, 2])[:2] == (3, 0)
    dates = {path: path.stat().st_mtime_ns for path in tmp_path.glob('*.png')}
    assert write(tmp_path, [1, 2, 3, 4])[:2] == (2, 2)
    assert all(path.stat().st_mtime_ns == date for path, date in dates.items())
    assert write(tmp_path, [0, 1, 2, 3, 4]) == (0, 5, None)


def test_images_by_other_settings_are_elsewhere(tmp_path):
    stem = tmp_path / 'pc'
    assert images_by_seed.directory_of(stem, 'these') == stem
    write(stem, [0])
    assert images_by_seed.directory_of(stem, 'these') == stem
    assert images_by_seed.directory_of(stem, 'others') == tmp_path / 'pc_others'


def test_images_that_are_none_have_no_file_and_are_told(tmp_path):
    written = write(tmp_path, [98, 99, 100, 101])
    assert written.drawn == 2
    assert written.problem == 'pc: 2 of 4 images are left out: 2 are not finite'
    assert sorted(pixels(tmp_path)) == ['000098.png', '000099.png']

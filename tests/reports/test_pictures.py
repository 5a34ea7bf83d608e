"""Sheets of images, as files."""

import numpy as np
from PIL import Image

from reports import pictures


def test_a_grid_has_every_image_in_its_place(tmp_path):
    tiles = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, 1).repeat(2, 2)
    sheet = pictures.grid(tiles)
    assert sheet.shape == (2 * 4 - 1, 3 * 3 - 1, 1)
    assert [sheet[i // 3 * 4, i % 3 * 3, 0] for i in range(5)] == list(range(5))
    pictures.save_png(tmp_path / 'a' / 'grid.png', sheet, min_side=70)
    assert Image.open(tmp_path / 'a' / 'grid.png').size == (80, 70)


def test_a_sheet_has_room_for_so_many_images():
    assert pictures.most((50_000, 32, 32, 3)) == 256
    assert pictures.most((8, 1024, 1024, 3)) == 16
    assert pictures.most((1, 2**13, 2**13, 3)) == 1


def test_what_stands_for_an_image_that_is_absent_is_a_cross():
    tile = pictures.absent((8, 8, 3))
    assert tile.shape == (8, 8, 3)
    assert (tile[np.arange(8), np.arange(8)] == 255).all()
    assert set(np.unique(tile)) == {128, 255}


def test_captions_stand_above_the_first_images():
    images = np.full((5, 8, 8, 3), 100, np.uint8)
    sheet = pictures.captioned(images, ['cat', '', 'dog'], 3)
    # Two rows of three images, enlarged to about 512 pixels, below one strip of text.
    side = 32 * 8
    assert sheet.shape == (pictures.CAPTION_HEIGHT + side + 1 + side, 3 * side + 2, 3)
    strip = sheet[: pictures.CAPTION_HEIGHT]
    has_ink = [strip[:, i * (side + 1) : (i + 1) * (side + 1)].min() < 128 for i in range(3)]
    assert has_ink == [True, False, True]
    assert (sheet[pictures.CAPTION_HEIGHT :, :side][:side] == 100).all()


def test_captions_that_are_too_long_are_cut():
    images = np.zeros((2, 64, 64, 1), np.uint8)
    long, short = (pictures.captioned(images, [text], 2) for text in ('W' * 500, 'W'))
    assert long.shape == short.shape
    # Nothing reaches into the second column.
    middle = long.shape[1] // 2
    assert (long[: pictures.CAPTION_HEIGHT, middle:] == 255).all()


def test_all_images_may_have_captions():
    sheet = pictures.captioned(np.zeros((4, 300, 300, 1), np.uint8), list('abcd'), 2)
    assert sheet.shape[0] == 2 * (pictures.CAPTION_HEIGHT + 300)

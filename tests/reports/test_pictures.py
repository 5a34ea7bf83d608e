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

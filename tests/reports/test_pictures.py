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

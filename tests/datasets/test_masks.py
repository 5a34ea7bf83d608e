"""Masks: what of an image is known."""

import numpy as np
import pytest
from PIL import Image

from datasets import masks
from datasets.stored import DataError

HOLE = np.zeros((4, 6), bool)
HOLE[1:3, 2:4] = True
OPAQUE = np.uint8(np.where(HOLE, 0, 255))
PHOTO = np.random.default_rng(0).integers(0, 90, (4, 6, 3), np.uint8)


def load(path, pixels, size=(4, 6)):
    file = path / 'mask.png'
    Image.fromarray(pixels).save(file)
    return masks.load(str(file), size)


def test_white_is_known_and_black_is_not(tmp_path, capsys):
    np.testing.assert_array_equal(load(tmp_path, OPAQUE), ~HOLE)
    np.testing.assert_array_equal(load(tmp_path, np.dstack([OPAQUE] * 3)), ~HOLE)
    assert not capsys.readouterr().out


def test_of_a_picture_with_a_hole_the_hole_is_unknown_however_dark_it_is(tmp_path, capsys):
    np.testing.assert_array_equal(load(tmp_path, np.dstack([PHOTO, OPAQUE])), ~HOLE)
    assert 'mask.png: a picture; what is transparent is unknown' in capsys.readouterr().out
    np.testing.assert_array_equal(load(tmp_path, np.dstack([255 - PHOTO, OPAQUE])), ~HOLE)


def test_of_a_drawing_white_alone_is_known_and_what_is_transparent_is_not(tmp_path):
    white, black = np.full((4, 6), 255, np.uint8), np.zeros((4, 6), np.uint8)
    np.testing.assert_array_equal(load(tmp_path, np.dstack([white] * 3 + [OPAQUE])), ~HOLE)
    assert not load(tmp_path, np.dstack([black] * 3 + [OPAQUE])).any()
    both = white.copy()
    both[0] = 0
    expected = ~HOLE
    expected[0] = False
    np.testing.assert_array_equal(load(tmp_path, np.dstack([both] * 3 + [OPAQUE])), expected)


def test_a_transparent_palette_is_unknown(tmp_path):
    image = Image.fromarray(np.uint8(HOLE), 'P')
    image.putpalette([255, 255, 255, 255, 255, 255])
    image.save(tmp_path / 'mask.png', transparency=1)
    np.testing.assert_array_equal(masks.load(str(tmp_path / 'mask.png'), (4, 6)), ~HOLE)


def test_greys_are_known_from_128_on_and_that_is_said(tmp_path, capsys):
    grey = OPAQUE.copy()
    grey[0, :2] = 127, 128
    expected = ~HOLE
    expected[0, 0] = False
    np.testing.assert_array_equal(load(tmp_path, grey), expected)
    assert '2 of 24 pixels are grey; those from 128 on are taken for white' in (
        capsys.readouterr().out
    )


def test_half_transparent_pixels_are_known_from_128_on_and_that_is_said(tmp_path, capsys):
    alpha = OPAQUE.copy()
    alpha[0, :2] = 127, 128
    expected = ~HOLE
    expected[0, 0] = False
    np.testing.assert_array_equal(load(tmp_path, np.dstack([PHOTO, alpha])), expected)
    assert '2 of 24 pixels are half transparent; those from 128' in capsys.readouterr().out


def test_a_mask_of_another_size_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r'mask\.png has 4x6 pixels; 6x4 needed, as data\.image_s'):
        load(tmp_path, OPAQUE, (6, 4))
    monkeypatch.setenv('HOME', str(tmp_path))
    assert masks.load('~/mask.png', (4, 6)).any()

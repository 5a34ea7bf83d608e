"""Corruptions of images: the same every time, ever stronger, and in 8 bits."""

import numpy as np
import pytest

from choices import ArgumentError
from evaluation import corruptions

RNG = np.random.default_rng(0)
# Smooth shapes, of which every corruption takes something away.
ROWS = np.indices((16, 20)).sum(0)
IMAGES = np.stack([127 + 120 * np.sin(ROWS / period) for period in (2, 3, 4)])
GREY = IMAGES[..., None].astype(np.uint8)
COLOURED = np.stack([GREY[..., 0], GREY[..., 0], 255 - GREY[..., 0]], axis=-1)


@pytest.mark.parametrize('name', corruptions.CORRUPTIONS)
@pytest.mark.parametrize('pixels', [GREY, COLOURED], ids=['grey', 'coloured'])
def test_stronger_corruptions_are_further_from_the_image(name, pixels):
    distances = []
    for strength in corruptions.STRENGTHS:
        found = corruptions.corrupt(pixels, name, strength, 0)
        assert found.shape == pixels.shape
        assert found.dtype == np.uint8
        distances.append(np.abs(found.astype(float) - pixels).mean())
    assert distances[0] > 1
    # Blocks of pixels do not all fit an image.
    assert distances[-1] > 1.3 * distances[0]


def test_noise_has_its_deviation_and_is_an_images_own():
    grey = np.full((200, 10, 10, 1), 128, np.uint8)
    found = corruptions.corrupt(grey, 'noise', 1, 0)
    # 20,000 values: a standard error of a two-hundredth.
    np.testing.assert_allclose(np.std(found / 255.0), 0.08, rtol=0.02)
    np.testing.assert_array_equal(corruptions.corrupt(grey[:3], 'noise', 1, 0), found[:3])
    assert np.any(corruptions.corrupt(grey[:3], 'noise', 1, 1) != found[:3])


def test_contrast_keeps_the_mean():
    found = corruptions.corrupt(COLOURED, 'contrast', 5, 0)
    np.testing.assert_allclose(found.mean((1, 2)), COLOURED.mean((1, 2)), atol=0.5)
    np.testing.assert_allclose(found.std((1, 2)), 0.05 * COLOURED.std((1, 2)), rtol=0.1)


def test_other_names_are_refused():
    with pytest.raises(ArgumentError, match="name: unknown name 'fog'; known: noise, blur"):
        corruptions.corrupt(GREY, 'fog', 1, 0)

"""Image files: how large they may be, and the modes that become grey or colour."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from datasets import image_files, loading
from datasets.stored import DataError


@pytest.fixture(params=[image_files.VERIFY_BYTES, -1], ids=['small', 'large'])
def limit(request, monkeypatch):
    """A folder is decoded whole, or not."""
    monkeypatch.setattr(image_files, 'VERIFY_BYTES', request.param)


def folder(path, **files):
    """A folder with a plain image, and others by their contents."""
    Image.new('L', (8, 8)).save(path / '0.png')
    for name, content in files.items():
        (path / f'{name}.png').write_bytes(content)
    return f'folder:{path}'


def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, key):
    header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)
    chunks = (b'IHDR', header), (b'tRNS', key), (b'IDAT', zlib.compress(rows)), (b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*one) for one in chunks)


# Size


def test_images_above_the_limit_of_pillow_are_read(tmp_path, recwarn):
    """14,000 x 14,000 pixels are more than twice of what Pillow allows."""
    Image.new('1', (14_000, 14_000), 1).save(tmp_path / '1.png')
    source = folder(tmp_path)
    found = [loading.load(source, split, (8, 8), 1)[0]['image'] for split in ('train', 'test')]
    assert sorted(image.min() for image in found) == [0, 255]
    assert not recwarn.list


@pytest.mark.usefixtures('limit')
def test_images_with_more_pixels_than_the_field_allows_are_named_at_the_start(tmp_path):
    Image.new('L', (30, 20)).save(tmp_path / '1.png')
    source = folder(tmp_path)
    message = r'1\.png has 20x30 pixels, 600; at most data\.max_pixels = 599 allowed'
    with pytest.raises(DataError, match=message):
        loading.load(source, 'train', (8, 8), 1, max_pixels=599)
    loading.load(source, 'train', (8, 8), 1, max_pixels=600)
    with pytest.raises(DataError, match=message):
        loading.load_all(f'{tmp_path}/1.png', (8, 8), 1, 'crop', max_pixels=599)[0]


# Modes


@pytest.mark.usefixtures('limit')
@pytest.mark.parametrize('mode', ['LAB', 'F', 'I'])
def test_modes_that_do_not_become_grey_or_colour_are_named_at_the_start(tmp_path, mode):
    source = folder(tmp_path)
    Image.new(mode, (8, 8)).save(tmp_path / '1.png', 'TIFF')
    with pytest.raises(DataError, match=rf"1\.png is an image of mode '{mode}' \(TIFF\), which"):
        loading.load(source, 'train', (8, 8), 3)


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'I;16'])
@pytest.mark.parametrize('channels', [1, 3])
def test_all_other_modes_become_grey_and_colour(tmp_path, mode, channels):
    for i in range(2):
        Image.new(mode, (8, 8)).save(tmp_path / f'{i}.png', 'TIFF')
    images = loading.load(f'folder:{tmp_path}', 'train', (8, 8), channels)
    assert images[0]['image'].shape == (8, 8, channels)


@pytest.mark.parametrize(
    ('depth', 'colour', 'row', 'key', 'expected'),
    [
        (16, 0, struct.pack('>HH', 0x1234, 0x1235), struct.pack('>H', 0x1234), (255, 0x12)),
        (16, 2, struct.pack('>6H', *[0x1234] * 3, *[0x8000] * 3), b'\x12\x34' * 3, (255, 0x80)),
        (8, 0, b'\x12\x80', b'\0\x12', (255, 0x80)),
        (8, 2, b'\x12' * 3 + b'\x80' * 3, b'\0\x12' * 3, (255, 0x80)),
        (4, 0, b'\x18', b'\0\1', (255, 8 * 17)),
        (2, 0, b'\x60', b'\0\1', (255, 2 * 85)),
        (1, 0, b'\x40', b'\0\0', (255, 255)),
    ],
    ids=['16 bits', '16 bits of colour', '8 bits', 'colour', '4 bits', '2 bits', '1 bit'],
)
def test_a_transparent_colour_is_white_whatever_the_bits(
    tmp_path, depth, colour, row, key, expected
):
    content = png(2, 1, depth, colour, b'\0' + row, key)
    (tmp_path / 'x.png').write_bytes(content)
    image = loading.load_all(f'{tmp_path}/x.png', (1, 2), 1, None)[0]['image']
    np.testing.assert_array_equal(image[0, :, 0], expected)

"""The images of a source: its splits, their sizes and channels, and what is refused."""

import importlib.util
import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from datasets import batching, image_files, loading
from datasets.stored import DataError
from tests.support.numbered import SHAPE, everything, numbered, numbered_images, numbers


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return f'npz:{path}'


@pytest.fixture
def folder(tmp_path):
    """Ten images of several sizes and formats in two subfolders."""
    for i, extension in enumerate(['png', 'jpg', 'webp', 'bmp', 'PNG'] * 2):
        name = tmp_path / ('cats' if i < 5 else 'dogs') / f'{i}.{extension}'
        save(name, np.full((20 + i, 30 - i, 3), 20 * i, np.uint8))
    return tmp_path


# Sources


@pytest.mark.parametrize(
    ('source', 'size', 'length'), [('mnist5k', (28, 28), 5000), ('digits', (8, 8), 1797)]
)
def test_embedded_splits_cover_the_source_and_keep_labels_with_images(source, size, length):
    train, test = (loading.load(source, split, size, 1) for split in loading.SPLITS)
    assert len(test) == round(0.1 * length)
    assert len(train) + len(test) == length
    # Ten digits, all of them about as frequent in the small split as in the large one, though
    # mnist5k is sorted: within 5 standard deviations of sqrt(500 * 0.1 * 0.9) = 6.7.
    counts = np.bincount(everything(test)['label'], minlength=10)
    assert np.abs(counts - len(test) / 10).max() < 5 * np.sqrt(0.09 * len(test))
    # Images are right side up and have their own labels if a nearest neighbour can tell.
    x, y = (
        everything(part)['image'].reshape(len(part), -1).astype(float) for part in (train, test)
    )
    distances = (x**2).sum(1) - 2 * y[:100] @ x.T
    found = everything(train)['label'][distances.argmin(1)]
    assert (found == everything(test)['label'][:100]).mean() > 0.85
    assert everything(train)['image'].max() == 255


def test_embedded_sets_start_in_under_five_seconds_and_import_no_other_package():
    program = """
import sys, time
from datasets import batching, loading
images = loading.load('mnist5k', 'train', (28, 28), 1)
next(batching.batches(loading.load('digits', 'train', (8, 8), 1), 64, seed=0))
batch = next(batching.batches(images, 64, seed=0))
assert batch['image'].shape == (64, 28, 28, 1), batch['image'].shape
others = {'tensorflow', 'tensorflow_datasets', 'mlxtend', 'sklearn', 'PIL'} & set(sys.modules)
assert not others, others
print(time.process_time())  # Not the clock's: other work on the machine must not count.
"""
    done = subprocess.run(
        [sys.executable, '-c', program],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 5


@pytest.mark.parametrize('keys', [{'images': 20}, {'train_images': 20}, {'images': 256}])
def test_made_splits_are_disjoint_complete_and_the_same_every_time(tmp_path, keys):
    source = save_npz(tmp_path / 'x.npz', **{key: numbered(n) for key, n in keys.items()})
    first, second = (
        [numbers([everything(loading.load(source, s, SHAPE, 1, 0.25))]) for s in loading.SPLITS]
        for _ in range(2)
    )
    total = sum(keys.values())
    assert sorted(first[0] + first[1]) == list(range(total))
    assert len(first[1]) == total // 4
    assert second == first


def test_npz_splits_and_labels_are_taken_as_they_are(tmp_path):
    source = save_npz(
        tmp_path / 'x.npz',
        train_images=numbered(7),
        train_labels=np.arange(7, dtype=np.uint8),
        test_images=np.repeat(numbered(3, start=100)[..., None], 3, axis=-1),
    )
    train = everything(loading.load(source, 'train', SHAPE, 1))
    test = everything(loading.load(source, 'test', SHAPE, 3))
    np.testing.assert_array_equal(train['image'], numbered(7)[..., None])
    np.testing.assert_array_equal(train['label'], np.arange(7))
    np.testing.assert_array_equal(test['image'][..., 2], numbered(3, start=100))
    np.testing.assert_array_equal(test['label'], [-1, -1, -1])
    assert train['image'].dtype == test['image'].dtype == np.uint8
    assert train['label'].dtype == test['label'].dtype == np.int32


def test_images_beside_test_images_are_the_training_images(tmp_path):
    arrays = {'images': numbered(7), 'labels': np.arange(7), 'test_images': numbered(3, 100)}
    source = save_npz(tmp_path / 'x.npz', **arrays)
    parts = [everything(loading.load(source, split, SHAPE, 1)) for split in loading.SPLITS]
    assert [numbers([part]) for part in parts] == [list(range(7)), [100, 101, 102]]
    assert parts[0]['label'].tolist() == list(range(7))


def test_folder_images_get_one_size_and_subfolders_are_labels(folder):
    parts = [loading.load(f'folder:{folder}', split, (16, 12), 3, 0.3) for split in loading.SPLITS]
    assert sum(len(part) for part in parts) == 10
    found = {}
    for item in itertools.chain(*parts):
        assert item['image'].shape == (16, 12, 3)
        assert item['image'].dtype == np.uint8
        found[round(item['image'].mean() / 20)] = int(item['label'])
    assert found == {i: int(i >= 5) for i in range(10)}


def test_folders_train_and_test_are_splits_with_common_labels(tmp_path):
    for number, name in enumerate(['train/a', 'train/b', 'train/c', 'test/a', 'test/c']):
        save(tmp_path / name / 'x.png', np.full((8, 8), number, np.uint8))
    train, test = (
        everything(loading.load(f'folder:{tmp_path}', split, (8, 8), 1)) for split in loading.SPLITS
    )
    assert (numbers([train]), train['label'].tolist()) == ([0, 1, 2], [0, 1, 2])
    assert (numbers([test]), test['label'].tolist()) == ([3, 4], [0, 2])


def test_folder_without_subfolders_has_no_labels_and_hidden_files_are_no_images(tmp_path):
    for i in range(4):
        save(tmp_path / f'{i}.png', np.full((8, 8), i, np.uint8))
    (tmp_path / '._0.png').write_bytes(b'what macOS leaves in archives')
    save(tmp_path / '.thumbnails' / '0.png', np.zeros((8, 8), np.uint8))
    batch = everything(loading.load(f'folder:{tmp_path}', 'train', (8, 8), 1, 0.25))
    assert 1 <= len(batch['label']) <= 3
    assert set(batch['label']) == {-1}


def test_images_are_decoded_once_if_they_fit_in_memory_and_else_every_time(folder, monkeypatch):
    decoded, decode = [], image_files.decode
    monkeypatch.setattr(
        image_files, 'decode', lambda file, *_: decoded.append(file) or decode(file)
    )
    for limit, times in [(loading.CACHE_BYTES, 1), (0, 3)]:
        monkeypatch.setattr(loading, 'CACHE_BYTES', limit)
        images = loading.load(f'folder:{folder}', 'train', (8, 8), 3)
        decoded.clear()
        first, *others = [everything(images) for _ in range(3)]
        assert len(decoded) == times * len(images)
        for other in others:
            np.testing.assert_array_equal(other['image'], first['image'])


@pytest.mark.parametrize('kind', ['tensor', 'encoded'])
def test_tfds_builders_are_prepared_and_read_without_tensorflow(tmp_path, kind):
    tfds = pytest.importorskip('tensorflow_datasets')
    tensor = tfds.features.Tensor(shape=(*SHAPE, 1), dtype=np.uint8)
    feature = {'tensor': tensor, 'encoded': tfds.features.Image(shape=(None, None, 1))}[kind]
    files = [tmp_path / f'{i}.png' for i in range(25)]
    for file, image in zip(files, numbered(25), strict=True):
        save(file, image)

    def info(self):
        features = {'image': feature, 'label': tfds.features.ClassLabel(num_classes=25)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def examples(self, numbers):
        for i in numbers:
            image = {'tensor': numbered(25)[i][..., None], 'encoded': str(files[i])}[kind]
            yield i, {'image': image, 'label': i}

    def splits(self, _):
        return {
            'train': examples(self, range(20)),
            'validation': examples(self, range(20, 25)),
        }

    name, data_dir = f'numbered_{kind}', str(tmp_path / 'tfds')
    members = {'VERSION': tfds.core.Version('1.0.0'), '_info': info, '_generate_examples': examples}
    # Making the class is what registers its name.
    type(
        f'Numbered{kind.title()}',
        (tfds.core.GeneratorBasedBuilder,),
        {**members, '_split_generators': splits, '__module__': __name__},
    )
    with pytest.raises(DataError, match=f'{name}.*not prepared.*download_and_prepare'):
        loading.load(name, 'train', SHAPE, 1, data_dir=data_dir)
    builder = tfds.builder(name, data_dir=data_dir, file_format='array_record')
    builder.download_and_prepare()
    for split, expected in [('train', range(20)), ('test', range(20, 25))]:
        images = loading.load(name, split, SHAPE, 1, data_dir=data_dir)
        batch = everything(images)
        assert sorted(numbers([batch])) == list(expected)
        assert batch['label'].tolist() == numbers([batch])
        assert images.labels().tolist() == batch['label'].tolist()
        assert images.found().startswith(f'{name}: 25 images')
        assert '(20 train, 5 test), 25 classes: 0, 1, 2, ' in images.found()
        again = loading.load(name, split, SHAPE, 1, data_dir=data_dir)
        assert again.fingerprint == images.fingerprint
        assert images.shape == (*SHAPE, 1)
    larger = loading.load(name, 'test', (8, 12), 3, data_dir=data_dir)
    assert sorted(numbers([everything(larger)])) == list(range(20, 25))
    # TFDS is free to use TensorFlow where it is installed.
    assert importlib.util.find_spec('tensorflow') or 'tensorflow' not in sys.modules


def test_omniglot_of_tfds_becomes_light_strokes_at_28_pixels(tmp_path):
    """By the features of its builder: 105 pixels in colour, with black strokes on white."""
    tfds = pytest.importorskip('tensorflow_datasets')
    published = tfds.builder_cls('omniglot')
    drawings = np.full((6, 105, 105, 3), 255, np.uint8)
    for i, drawing in enumerate(drawings):
        drawing[45:60, 15 * i : 15 * i + 15] = 0
        save(tmp_path / f'{i}.png', drawing)

    def examples(self, numbers):
        for i in numbers:
            path = str(tmp_path / f'{i}.png')
            yield i, {'image': path, 'alphabet': 0, 'alphabet_char_id': i, 'label': i}

    def splits(self, _):
        return {'train': examples(self, range(4)), 'test': examples(self, range(4, 6))}

    members = {'_split_generators': splits, '__module__': __name__}
    type('OmniglotStandIn', (published,), members)
    name, data_dir = 'omniglot_stand_in', str(tmp_path / 'tfds')
    builder = tfds.builder(name, data_dir=data_dir, file_format='array_record')
    builder.download_and_prepare()
    for split, expected in [('train', range(4)), ('test', range(4, 6))]:
        images = loading.load(name, split, (28, 28), 1, data_dir=data_dir, invert=True)
        assert images.shape == (28, 28, 1)
        batch = everything(images)
        assert sorted(batch['label']) == list(expected)
        for image, label in zip(batch['image'], batch['label'], strict=True):
            # A square of 15 pixels is 4 wide.
            rows, columns = np.nonzero(image[..., 0] > 127)
            assert (rows.min(), rows.max()) == (12, 15)
            assert (columns.min(), columns.max()) == (4 * label, 4 * label + 3)
            assert np.isin(image[:8], (0,)).all()


def test_inverted_images_are_other_data(tmp_path):
    images = np.arange(48, dtype=np.uint8).reshape(4, 3, 4)
    np.savez(tmp_path / 'a.npz', train_images=images, test_images=images)
    plain, inverted = (
        loading.load(f'npz:{tmp_path}/a.npz', 'test', (3, 4), 1, invert=invert)
        for invert in (False, True)
    )
    np.testing.assert_array_equal(everything(inverted)['image'], 255 - images[..., None])
    assert plain.fingerprint != inverted.fingerprint


def test_names_of_tfds_that_are_those_of_other_sources_have_a_prefix(tmp_path):
    with pytest.raises(
        DataError, match=r"'tfds:cifar10' is not prepared; .*tfds.builder\('cifar10'"
    ):
        loading.load('tfds:cifar10', 'train', (32, 32), 3, data_dir=str(tmp_path))


# Size and channels


def gradient(height, width):
    """A grey image whose pixels are their columns."""
    return np.broadcast_to(np.arange(width, dtype=np.uint8), (height, width))


@pytest.mark.parametrize(
    ('fit', 'first', 'last'),
    [('crop', 20, 40), ('squash', 0, 60), ('pad', None, None)],
)
def test_fits_crop_the_centre_squash_or_pad(tmp_path, fit, first, last):
    source = save_npz(tmp_path / 'x.npz', images=np.stack([gradient(20, 60)] * 4))
    image = loading.load(source, 'train', (10, 10), 1, 0.25, fit)[0]['image'][..., 0]
    if fit == 'pad':  # 60x20 becomes 10x3 between black bars.
        assert not image[:3].any()
        assert not image[-3:].any()
        assert image[4:6, 1:].all()
    else:  # An output pixel averages those from column `first` on, in ten steps up to `last`.
        step = (last - first) / 10
        expected = first - 0.5 + step * (np.arange(10) + 0.5)
        # Border pixels lack the neighbours that the filter would take in.
        np.testing.assert_allclose(image[5, 1:-1], expected[1:-1], atol=0.51)


@pytest.mark.parametrize('kind', ['npz', 'folder'])
@pytest.mark.parametrize('image_size', [(4, 4), (6, 9)])
def test_a_square_is_cut_from_the_centre_before_images_are_fitted(tmp_path, kind, image_size):
    pixels = np.random.RandomState(0).randint(0, 256, (6, 9, 3), np.uint8)
    for i in range(2):
        save(tmp_path / f'{i}.png', pixels)
    source = save_npz(tmp_path / 'x.npz', images=np.stack([pixels] * 2))
    source = source if kind == 'npz' else f'folder:{tmp_path}'
    cut = loading.load(source, 'train', image_size, 3, 0.5, crop_size=4)[0]['image']
    square = save_npz(tmp_path / 'y.npz', images=np.stack([pixels[1:5, 2:6]] * 2))
    expected = loading.load(square, 'train', image_size, 3, 0.5)[0]['image']
    np.testing.assert_array_equal(cut, expected)
    if image_size == (4, 4):
        np.testing.assert_array_equal(cut, pixels[1:5, 2:6])


def test_a_side_shorter_than_the_square_stays(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (3, 9, 3), np.uint8)
    source = save_npz(tmp_path / 'x.npz', images=np.stack([pixels] * 2))
    image = loading.load(source, 'train', (3, 5), 3, 0.5, crop_size=5)[0]['image']
    np.testing.assert_array_equal(image, pixels[:, 2:7])


def test_images_of_the_right_size_are_not_resampled(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (4, 9, 7, 3), np.uint8)
    for i in range(4):
        save(tmp_path / f'{i}.png', noise[i])
    loaded = loading.load(f'folder:{tmp_path}', 'train', (9, 7), 3, 0.25)
    for item in loaded:
        assert any((item['image'] == image).all() for image in noise)


@pytest.mark.parametrize(
    ('pixel', 'channels', 'expected'),
    [
        (np.uint8(7), 3, (7, 7, 7)),
        (np.uint8([250, 100, 20]), 3, (250, 100, 20)),
        # 0.299 R + 0.587 G + 0.114 B (ITU-R 601-2).
        (np.uint8([250, 100, 20]), 1, (136,)),
        (np.uint8([250, 100, 20, 255]), 3, (250, 100, 20)),
        (np.uint8([250, 100, 20, 0]), 3, (255, 255, 255)),
        (np.uint16(0x12FF), 1, (0x12,)),
    ],
    ids=['grey', 'colour', 'luminance', 'opaque', 'transparent', '16 bits'],
)
def test_modes_become_the_channels_that_are_asked_for(tmp_path, pixel, channels, expected):
    for i in range(2):
        save(tmp_path / f'{i}.png', np.broadcast_to(pixel, (5, 5, *np.shape(pixel))).copy())
    image = loading.load(f'folder:{tmp_path}', 'train', (5, 5), channels, 0.5)[0]['image']
    np.testing.assert_array_equal(image, np.broadcast_to(expected, (5, 5, channels)))


def test_photos_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: the camera was turned, the top of the scene is at the right.
    for i in range(2):
        Image.fromarray(gradient(16, 16)).save(tmp_path / f'{i}.png', exif=exif)
    image = loading.load(f'folder:{tmp_path}', 'train', (16, 16), 1, 0.5)[0]['image'][..., 0]
    np.testing.assert_array_equal(image, gradient(16, 16).T)


def test_items_are_indexed_like_a_list():
    images = numbered_images(5)
    assert [int(item['label']) for item in images] == [0, 1, 2, 3, 4]
    assert images[-1]['image'].shape == (*SHAPE, 1)
    with pytest.raises(IndexError):
        images[5]


# Errors


@pytest.mark.parametrize('limit', [image_files.VERIFY_BYTES, 0], ids=['small', 'large'])
@pytest.mark.parametrize('content', ['truncated', 'empty', 'text', 'dangling'])
def test_broken_images_are_named_when_a_folder_is_loaded(folder, monkeypatch, limit, content):
    monkeypatch.setattr(image_files, 'VERIFY_BYTES', limit)
    names = ['cats/0.png', 'cats/1.jpg', 'dogs/7.webp', 'dogs/8.bmp']
    for name in names:
        file = folder / name
        whole = file.read_bytes()
        file.unlink()
        if content == 'dangling':
            file.symlink_to(folder / 'nowhere.png')
        else:
            parts = {'truncated': whole[: len(whole) * 2 // 3], 'empty': b'', 'text': b'not found'}
            file.write_bytes(parts[content])
    with pytest.raises(DataError, match=r'cats/0\.png is not an image.*3 other files'):
        loading.load(f'folder:{folder}', 'test', (8, 8), 3)


def test_an_image_that_breaks_after_loading_is_named_by_the_iterator(folder):
    images = loading.load(f'folder:{folder}', 'train', (8, 8), 3, 0.5)
    for file in folder.rglob('*.*'):
        file.write_bytes(b'')
    with pytest.raises(DataError, match='is not an image'):
        next(batching.batches(images, len(images), seed=0))


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'x_train': numbered(4)}, 'keys x_train; train_images and test_images, or images'),
        ({'test_images': numbered(4)}, 'keys test_images; train_images and test_images'),
        ({'images': numbered(4) / 255}, r'images is float64 \(4, 4, 6\); uint8'),
        ({'images': np.zeros((4, 3, 8, 8), np.uint8)}, r'images is uint8 \(4, 3, 8, 8\); uint8'),
        ({'images': numbered(4), 'labels': np.zeros(3, int)}, r'labels is int64 \(3,\); integers'),
        ({'images': numbered(4), 'labels': np.zeros(4)}, r'labels is float64 \(4,\); integers'),
        ({'images': numbered(4), 'labels': np.arange(4) - 2}, 'labels are from -2 to 1; those of'),
        ({'images': numbered(4), 'labels': np.full(4, 2**32)}, 'labels are from 4294967296 to'),
        ({'images': np.array([{}])}, 'x.npz is no .npz file of plain arrays'),
    ],
)
def test_npz_files_with_other_contents_are_refused(tmp_path, arrays, message):
    source = save_npz(tmp_path / 'x.npz', **arrays)
    with pytest.raises(DataError, match=message):
        loading.load(source, 'train', SHAPE, 1)


def test_files_that_are_missing_or_no_npz_are_refused(tmp_path):
    np.save(tmp_path / 'x.npy', numbered(4))
    (tmp_path / 'x.npz').write_bytes(b'PK\x03\x04 a zip file, once')
    for name, message in [('x.npy', 'no .npz'), ('x.npz', 'no .npz'), ('y.npz', 'no such file')]:
        with pytest.raises(DataError, match=message):
            loading.load(f'npz:{tmp_path / name}', 'train', SHAPE, 1)
    with pytest.raises(DataError, match='no such folder'):
        loading.load(f'folder:{tmp_path / "nowhere"}', 'train', SHAPE, 1)
    with pytest.raises(DataError, match=r'holds no images; files named \*\.png'):
        loading.load(f'folder:{tmp_path}', 'train', SHAPE, 1)


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('mnist5', 'similar: mnist5k, .*allowed: mnist5k, digits, cifar10, cifar100, folder:PATH'),
        ('cifar', 'similar: cifar10'),
        ('lsun/bedrom', 'similar: lsun/bedroom'),
        (
            'mnist:9.9.9',
            "^data.source 'mnist:9.9.9': Dataset mnist cannot be loaded at version 9.9.9",
        ),
        ('', 'unknown'),
        (__file__, f'similar: npz:{__file__}'),
    ],
)
def test_unknown_sources_are_refused_with_similar_and_known_ones(source, message):
    with pytest.raises(DataError, match=message) as error:
        loading.load(source, 'train', (8, 8), 1)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'split': 'valid'}, "split is 'valid'; allowed: 'train', 'test'"),
        ({'channels': 2}, 'channels is 2; allowed: 1, 3'),
        ({'fit': 'zoom'}, "fit is 'zoom'; allowed: 'crop', 'squash', 'pad'"),
        ({'image_size': (0, 8)}, r'image_size is \(0, 8\); two positive'),
        ({'crop_size': 0}, 'crop_size is 0; a positive number, or None'),
        ({'test_fraction': 0.0}, 'test_fraction is 0.0, which makes a test split of 0 of 1,797'),
        ({'test_fraction': 1.5}, 'test_fraction is 1.5'),
    ],
)
def test_impossible_arguments_are_refused_with_what_is_allowed(arguments, message):
    defaults = {'source': 'digits', 'split': 'train', 'image_size': (8, 8), 'channels': 1}
    with pytest.raises(DataError, match=message):
        loading.load(**{**defaults, **arguments})


@pytest.mark.parametrize('kind', ['cifar10', 'cifar100', 'folder', 'zip', 'tar', 'npz'])
def test_a_source_that_lacks_its_path_is_refused(kind):
    with pytest.raises(
        DataError, match=f"^data.source '{kind}:': a path is needed, as in {kind}:P"
    ):
        loading.load(f'{kind}:', 'train', (8, 8), 1)

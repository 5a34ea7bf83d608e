"""What `make demo` asks before it trains."""

import pytest

from choices import InputError
from configs import agree

CLASSIFIER = 'configs/ve/mnist_classifier.py'


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(agree.paths.ROOT)


@pytest.mark.parametrize(
    'experiment', ['configs/vp/mnist_ddpmpp.py', 'configs/vp/mnist_classes_ddpmpp.py']
)
def test_the_classifier_of_digits_takes_digits(experiment):
    agree.check(experiment, CLASSIFIER)


@pytest.mark.parametrize(
    ('experiment', 'why'),
    [
        ('configs/vp/cifar10_ddpmpp.py', r'^data.image_size: \(32, 32\) in .*, and \(28, 28\) in'),
        ('configs/vp/mnist_ddpmpp', '^CONFIG: cannot load .*; there is configs/vp/mnist_ddpmpp.py'),
    ],
)
def test_other_images_and_other_files_are_refused(experiment, why):
    with pytest.raises(InputError, match=why):
        agree.check(experiment, CLASSIFIER)


def test_images_with_other_channels_are_refused(tmp_path):
    (tmp_path / 'colours.py').write_text(
        'from configs.vp import mnist_ddpmpp\n\n\ndef get_config():\n'
        '    config = mnist_ddpmpp.get_config()\n    config.data.channels = 3\n    return config\n'
    )
    with pytest.raises(InputError, match='^data.channels: 3 in .*colours.py, and 1 in'):
        agree.check(str(tmp_path / 'colours.py'), CLASSIFIER)

"""Config files that are not where a user has them."""

from configs import paths


def test_a_file_without_its_ending_is_found():
    found = paths.hint('configs/vp/mnist_ddpmpp')
    assert found.endswith('configs/vp/mnist_ddpmpp.py')


def test_a_path_from_the_root_of_the_project_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ('configs/vp/mnist_ddpmpp.py', 'configs/vp/mnist_ddpmpp'):
        assert paths.hint(path) == f'; there is {paths.ROOT}/configs/vp/mnist_ddpmpp.py'


def test_of_what_is_like_no_config_nothing_is_said():
    assert paths.hint('photos') == ''


def test_all_experiments_are_known():
    assert 'configs/ve/ncsnv2/cifar10.py' in paths.experiments()
    assert 'configs/vp/base.py' not in paths.experiments()

"""The report: one file that shows what a workdir holds, and asks for nothing from elsewhere."""

import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from evaluation import quantities
from evaluation.quantities import Quantity
from reports import pictures, report
from storage import workdirs
from tests import tiny_config

VOID = {'meta', 'img', 'br'}
PICTURES = (
    *('samples/0000010.png', 'samples/0000020.png', 'samples/0000020_class.png'),
    *(f'eval/20/{name}.png' for name in ('samples_pc', 'denoising', 'interpolation', 'neighbours')),
)
RATES = [Quantity('samples_per_second', 4.5, better='higher', of='pc')]


def found(step):
    """Numbers of every measure."""
    return [
        Quantity('test_loss', 2.0 / step, 0.01, 'lower'),
        Quantity('bits_per_dim', 1.25, 0.02, 'lower'),
        Quantity('bits_per_dim_images', 40),
        Quantity('nfe', 200.0, better='lower', of='pc'),
        Quantity('fd', 1.5, better='lower', of='pc', by='classifier'),
        Quantity('fd', 0.3, better='lower', of='train', by='classifier'),
    ]


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """Every kind of file that the report knows, of two checkpoints."""
    path = tmp_path_factory.mktemp('run')
    rng = np.random.default_rng(0)
    (path / 'config.json').write_text(json.dumps(tiny_config.get_config().to_dict()))
    (path / 'logs').mkdir()
    rows = [
        {'step': s, 'loss': 1 / s, 'test_loss': 1.1 / s, 'steps_per_second': 5.0}
        for s in range(1, 20)
    ]
    (path / 'logs' / 'metrics.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    for step in (10, 20):
        directory = path / 'eval' / str(step)
        directory.mkdir(parents=True)
        quantities.write(directory / 'metrics.json', step, found(step))
        quantities.write(directory / 'rates.json', step, RATES)
        np.savez(directory / 'bits_per_dim.npz', bits_per_dim=rng.normal(1.25, 0.3, 40))
    for name in PICTURES:
        pixels = rng.integers(0, 256, (4, 8, 8, 1), np.uint8)
        pictures.save_png(path / name, pictures.grid(pixels), min_side=1)
    return path


@pytest.fixture(scope='module')
def workdir_of_before(workdir, tmp_path_factory):
    """That run, as the version before has evaluated it: flat dictionaries of numbers."""
    path = shutil.copytree(workdir, tmp_path_factory.mktemp('before') / 'run')
    for step in (10, 20):
        flat = {'step': step, 'test_loss': 2.0 / step, 'test_loss_standard_error': 0.01}
        flat |= {'bits_per_dim': 1.25, 'bits_per_dim_standard_error': 0.02, 'pc_nfe': 200.0}
        flat |= {'pc_fd_classifier': 1.5, 'train_fd_classifier': 0.3}
        (path / 'eval' / str(step) / 'metrics.json').write_text(json.dumps(flat))
        rates = {'pc_samples_per_second': 4.5}
        (path / 'eval' / str(step) / 'rates.json').write_text(json.dumps(rates))
    return path


class Elements(html.parser.HTMLParser):
    """The elements of a page, after checking that they are nested properly."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_shows_everything_there_is(workdir):
    text = report.write(workdir).read_text()
    elements = Elements(text).found
    assert len([tag for tag, _ in elements if tag == 'img']) == 7
    # Loss, the histogram, and two numbers over checkpoints at least.
    assert len([tag for tag, _ in elements if tag == 'svg']) >= 4
    for expected in (
        *('0.1 ± 0.01', '1.25 ± 0.02', 'samples after 20 steps', '5 steps a second'),
        *('pc: 200 network evaluations', 'train split (the floor)', '>4.5<', '>class<'),
        *('Frechet distance, pc, classifier', '>images/s<', '>bits per dim images<', '>40<'),
        *('Nearest training images', 'training.batch_size', 'jaxlib'),
    ):
        assert expected in text, expected


def test_of_evaluations_of_the_version_before_the_report_shows_the_numbers(workdir_of_before):
    text = report.write(workdir_of_before).read_text()
    elements = Elements(text).found
    assert len([tag for tag, _ in elements if tag == 'img']) == 7
    assert '<b>0.1</b><span>test loss</span>' in text
    assert '<b>1.25</b><span>bits/dim</span>' in text
    for label, value in (
        ('pc_nfe', '200'),
        ('pc_fd_classifier', '1.5'),
        ('train_fd_classifier', '0.3'),
    ):
        assert f'<td>{label}</td><td>{value}</td><td>{value}</td>' in text


def test_numbers_of_both_versions_are_in_the_same_rows(workdir, workdir_of_before, tmp_path):
    """A run that was evaluated before, and goes on to be evaluated now."""
    path = shutil.copytree(workdir_of_before, tmp_path / 'run')
    shutil.copytree(workdir / 'eval' / '20', path / 'eval' / '20', dirs_exist_ok=True)
    text = report.page(path)
    for label, before, now in (
        ('test_loss', '0.2', '0.1 ± 0.01'),
        ('pc_nfe', '200', '200'),
        ('pc_fd_classifier', '1.5', '1.5'),
        ('pc_samples_per_second', '4.5', '4.5'),
    ):
        assert f'<td>{label}</td><td>{before}</td><td>{now}</td>' in text
    assert 'train split (the floor)' in text


def test_the_report_asks_for_nothing_from_elsewhere(workdir):
    for tag, attributes in Elements(report.page(workdir)).found:
        for name in ('src', 'href', 'xlink:href', 'action', 'data'):
            assert attributes.get(name, '#').startswith(('#', 'data:')), (tag, attributes)
    assert '@import' not in report.page(workdir)
    assert not re.findall(r'url\((?!#)', report.page(workdir))


def test_the_report_leaves_out_what_is_not_there(workdir, tmp_path):
    (tmp_path / 'config.json').write_bytes((workdir / 'config.json').read_bytes())
    text = report.write(tmp_path).read_text()
    titles = re.findall('<h2>(.*?)</h2>', text)
    assert titles == ['Config and versions']
    Elements(text)


def test_a_picture_that_is_being_written_is_not_shown(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / 'copy')
    picture = copy / 'samples' / '0000020_class.png'
    shutil.copy(picture, picture.with_name(f'.draft_0a1b2c3d_{picture.name}'))
    assert report.page(copy).count('<figcaption') == report.page(workdir).count('<figcaption')


def test_the_same_files_make_the_same_report(workdir):
    assert report.page(workdir) == report.page(workdir)


BROWSER = """
import json, sys
from PyQt6 import QtCore, QtWebEngineCore, QtWebEngineWidgets, QtWidgets

application = QtWidgets.QApplication(sys.argv)
requests = []

class Noting(QtWebEngineCore.QWebEngineUrlRequestInterceptor):
    def interceptRequest(self, info):
        requests.append(info.requestUrl().toString()[:100])

interceptor, page = Noting(), QtWebEngineCore.QWebEnginePage()
page.profile().setUrlRequestInterceptor(interceptor)
SIZES = '[...document.images].map(i => i.naturalWidth)'

def finish(sizes):
    print(json.dumps({'title': page.title(), 'sizes': sizes, 'requests': requests}))
    application.quit()

page.loadFinished.connect(lambda loaded: page.runJavaScript(SIZES, 0, finish))
page.load(QtCore.QUrl.fromLocalFile(sys.argv[1]))
application.exec()
"""


def test_chromium_opens_the_report(workdir, monkeypatch):
    """Qt's WebEngine, which is Chromium: it shows all pictures, and asks for this file alone."""
    pytest.importorskip('PyQt6.QtWebEngineCore', exc_type=ImportError)
    monkeypatch.setenv('QT_QPA_PLATFORM', 'offscreen')
    monkeypatch.setenv('QTWEBENGINE_CHROMIUM_FLAGS', '--no-sandbox --disable-gpu')
    path = pathlib.Path(report.write(workdir)).absolute()
    done = subprocess.run(
        [sys.executable, '-c', BROWSER, path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found['title'] == 'ncsnpp, vp SDE, digits'
    assert len(found['sizes']) == 7
    assert all(size > 0 for size in found['sizes'])
    assert {url for url in found['requests'] if not url.startswith('data:')} == {path.as_uri()}


def test_classes_are_shown_with_their_names(workdir, tmp_path):
    path = shutil.copytree(workdir, tmp_path / 'run')
    assert '<h2>Classes</h2>' not in report.page(path)
    kept = {'names': ['cat', 'dog', '<owl>'], 'counts': [1234, 0, 5]}
    workdirs.keep_data(path, False, False, {}, kept)
    np.savez(path / 'samples' / '0000020_class.npz', labels=np.array([2, 0, 2]))
    text = report.page(path)
    Elements(text)
    assert '<td>0</td><td>cat</td><td>1,234</td>' in text
    assert '<td>2</td><td>&lt;owl&gt;</td><td>5</td>' in text
    assert 'dog' not in text
    assert 'class of cat, &lt;owl&gt;<' in text

"""What is gone once a signal has ended a program at once."""

import signal
import subprocess
import sys

import pytest

from storage import locks
from tests.support import program

# Waits within what is to be left without a trace.
WAITING = """
import pathlib, signal, sys, time
from datasets import downloads
from devices import preemption, processes
from storage import files
from storage.locks import Lock
path = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)

def wait(draft):
    draft.write_text('half')
    print('ready', flush=True)
    time.sleep(60)

def lock():
    held = Lock(path / 'lock')
    held.take()
    wait(path / 'lasting')

def draft():
    with files.replacing(path / 'a.txt') as draft:
        wait(draft)

def download():
    downloads._copy = lambda file, draft: wait(draft)
    downloads.fetch(downloads.Published('http://none/a', ''), path, 'a', 'b')

with preemption.ending_at_once('ended'):
    {within}()
"""


def ended_within(name, path):
    """What is in a directory after Ctrl-C."""
    command = [sys.executable, '-c', WAITING.replace('{within}', name), str(path)]
    with subprocess.Popen(command, cwd=program.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'ready\n'
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, 'SIGINT: ended\n')
    return [found.name for found in path.iterdir()]


@pytest.mark.parametrize('name', ['draft', 'download'])
def test_a_draft_is_gone(name, tmp_path):
    (tmp_path / 'a.txt').touch()
    assert ended_within(name, tmp_path) == ['a.txt']


def test_a_lock_is_gone_and_nobody_has_to_be_told_of_it(tmp_path, capsys):
    assert ended_within('lock', tmp_path) == ['lasting']
    lock = locks.Lock(tmp_path / 'lock')
    lock.take()
    lock.release()
    assert not capsys.readouterr().out

"""Scalars on disk."""

import io
import struct
import time

import jax.numpy as jnp
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from choices import InputError, RunError
from reports import logs, plots


def test_scalars_come_back_from_the_file(tmp_path):
    log = logs.MetricsLog(tmp_path, 0)
    log.write(1, {'loss': 0.5})
    log.write(2, {'loss': 0.25})
    log.close()
    expected = [{'step': 1, 'loss': 0.5}, {'step': 2, 'loss': 0.25}]
    assert logs.read(tmp_path / 'metrics.jsonl') == expected
    assert list(tmp_path.glob('events.*'))


def test_a_resumed_log_drops_what_the_checkpoint_does_not_know(tmp_path):
    log = logs.MetricsLog(tmp_path, 0)
    for step in (10, 20, 30):
        log.write(step, {'loss': 1.0})
    log.close()
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 40, "lo')  # Killed while writing.
    logs.MetricsLog(tmp_path, 20).close()
    assert [row['step'] for row in logs.read(tmp_path / 'metrics.jsonl')] == [10, 20]


def test_progress_averages_windows_and_writes_them_in_order(tmp_path):
    log = logs.MetricsLog(tmp_path, 0)
    with logs.ProgressLog(log, 0, 8, log_every=4) as progress:
        for step in (2, 4, 6, 8):
            progress.add(step, {'loss': jnp.array([step - 1.0, step])}, waited=0.0)
            if step == 4:
                progress.add_test_loss(step, jnp.float32(9.0))
    rows = logs.read(tmp_path / 'metrics.jsonl')
    assert [(row['step'], row.get('loss'), row.get('test_loss')) for row in rows] == [
        (4, 2.5, None),
        (4, None, 9.0),
        (8, 6.5, None),
    ]
    assert rows[0]['steps_per_second'] > 0
    assert rows[0]['data_wait'] == 0


def test_the_wait_for_data_is_a_share_of_the_time_it_was_part_of(tmp_path):
    """Metrics are read one dispatch late; their times are not."""
    log = logs.MetricsLog(tmp_path, 0)
    with logs.ProgressLog(log, 0, 4, log_every=2) as progress:
        for step, waited in ((1, 0.0), (2, 0.05), (3, 0.0), (4, 0.0)):
            time.sleep(waited)
            progress.add(step, {'loss': jnp.zeros(1)}, waited)
    rows = logs.read(tmp_path / 'metrics.jsonl')
    assert 0 < rows[0]['data_wait'] <= 1
    assert rows[1]['data_wait'] == 0


def test_curves_are_drawn(tmp_path):
    log = logs.MetricsLog(tmp_path, 0)
    for step in (1, 2):
        log.write(step, {'loss': 1.0 / step})
    log.close()
    plots.save(
        plots.training_curves(logs.read(tmp_path / 'metrics.jsonl')), tmp_path / 'curves.png'
    )
    assert (tmp_path / 'curves.png').stat().st_size > 1000


def test_skipped_updates_are_counted_and_not_averaged(tmp_path):
    """Two dispatches of two steps a line; a line without a finite loss has none."""
    log = logs.MetricsLog(tmp_path, 0)
    nan = float('nan')
    with logs.ProgressLog(log, 0, 8, log_every=4) as progress:
        for step, losses, skipped in (
            (2, [1.0, nan], [0, 1]),
            (4, [nan, 3.0], [2, 0]),
            (6, [nan, nan], [1, 2]),
            (8, [nan, nan], [3, 4]),
        ):
            scalars = {'loss': jnp.array(losses), 'skipped': jnp.array(skipped)}
            progress.add(step, scalars, waited=0.0)
            if step == 6:
                assert progress.most_skipped == (3, 2)
    assert progress.most_skipped == (8, 4)
    rows = logs.read(tmp_path / 'metrics.jsonl')
    assert [(row.get('loss'), row['skipped']) for row in rows] == [(2.0, 2), (None, 4)]


# Disks and damage


def log_three_steps(log):
    with logs.ProgressLog(log, 0, 4, log_every=1) as progress:
        for step in (1, 2, 3):
            progress.add(step, {'loss': jnp.zeros(1)}, waited=0.0)


def fail_after_a_step(log):
    """For a reason of its own, with a row that is still to be written."""
    with logs.ProgressLog(log, 0, 4, log_every=1) as progress:
        progress.add(1, {'loss': jnp.zeros(1)}, waited=0.0)
        raise KeyError('the cause')


def full_disk():
    return io.BufferedWriter(io.FileIO('/dev/full', 'w'))


def fill_metrics(log, tmp_path, monkeypatch):
    (tmp_path / 'metrics.jsonl').unlink()
    (tmp_path / 'metrics.jsonl').symlink_to('/dev/full')


def fill_events(log, tmp_path, monkeypatch):
    monkeypatch.setattr(log._events._py_recordio_writer, '_writer', full_disk())


@pytest.mark.parametrize('fill', [fill_metrics, fill_events])
def test_a_full_disk_is_what_ends_a_log_and_closing_it_says_nothing_else(
    fill, tmp_path, monkeypatch
):
    log = logs.MetricsLog(tmp_path, 0)
    fill(log, tmp_path, monkeypatch)
    with pytest.raises(RunError, match='cannot be written: No space left on device') as raised:
        log_three_steps(log)
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__context__ is raised.value.__cause__


def test_the_cause_is_told_if_the_disk_is_full_as_well(tmp_path, monkeypatch):
    log = logs.MetricsLog(tmp_path, 0)
    fill_events(log, tmp_path, monkeypatch)
    with pytest.raises(KeyError, match='the cause'):
        fail_after_a_step(log)


@pytest.mark.parametrize(
    ('line', 'shown'),
    [
        (b'garbage', 'garbage'),
        (b'', "''"),
        (b'\x00\xff\x00', "'"),
        (b'[1]', r'\[1\]'),
        (b'{"loss": 1.0}', 'loss'),
        (b'{"step": 2, "loss": "low"}', 'low'),
        (b'{"step": 2, "lo', 'lo'),
    ],
)
def test_a_line_that_is_no_row_is_named(line, shown, tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(InputError, match=f'metrics.jsonl: line 2 is damaged: .*{shown}.*; delete'):
        logs.read(path)


def test_tensorboard_reads_the_scalars_and_where_a_run_went_on(tmp_path):
    log = logs.MetricsLog(tmp_path, 4)
    log.write(6, {'loss': 0.5})
    (path,) = tmp_path.glob('events.*')
    events = [Event.FromString(record) for record in records(path.read_bytes())]
    assert events[0].file_version == 'brain.Event:2'
    assert (events[1].step, events[1].session_log.status) == (5, SessionLog.START)
    (value,) = events[2].summary.value
    assert (events[2].step, value.tag, value.simple_value) == (6, 'loss', 0.5)
    assert events[2].wall_time == pytest.approx(time.time(), abs=60)


def records(content):
    """The records of a TFRecord file: length, its checksum, bytes, their checksum."""
    while content:
        (length,) = struct.unpack('<Q', content[:8])
        yield content[12 : 12 + length]
        content = content[12 + length + 4 :]

"""Scalars on disk."""

import jax.numpy as jnp

import metrics
import plots


def test_scalars_come_back_from_the_file(tmp_path):
    log = metrics.MetricsLog(tmp_path, 0)
    log.write(1, {'loss': 0.5})
    log.write(2, {'loss': 0.25})
    log.close()
    expected = [{'step': 1, 'loss': 0.5}, {'step': 2, 'loss': 0.25}]
    assert metrics.read(tmp_path / 'metrics.jsonl') == expected
    assert list(tmp_path.glob('events.*'))


def test_a_resumed_log_drops_what_the_checkpoint_does_not_know(tmp_path):
    log = metrics.MetricsLog(tmp_path, 0)
    for step in (10, 20, 30):
        log.write(step, {'loss': 1.0})
    log.close()
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 40, "lo')  # Killed while writing.
    metrics.MetricsLog(tmp_path, 20).close()
    assert [row['step'] for row in metrics.read(tmp_path / 'metrics.jsonl')] == [10, 20]


def test_progress_averages_windows_and_writes_them_in_order(tmp_path):
    log = metrics.MetricsLog(tmp_path, 0)
    with metrics.ProgressLog(log, 0, 8, log_every=4) as progress:
        for step in (2, 4, 6, 8):
            progress.add(step, {'loss': jnp.array([step - 1.0, step])}, waited=0.0)
            if step == 4:
                progress.add_test_loss(step, jnp.float32(9.0))
    rows = metrics.read(tmp_path / 'metrics.jsonl')
    assert [(row['step'], row.get('loss'), row.get('test_loss')) for row in rows] == [
        (4, 2.5, None),
        (4, None, 9.0),
        (8, 6.5, None),
    ]
    assert rows[0]['steps_per_second'] > 0
    assert rows[0]['data_wait'] == 0
    plots.training_curves(tmp_path / 'metrics.jsonl', tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').stat().st_size > 1000

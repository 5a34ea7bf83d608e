"""Killed at any instant, a run ends with the bits of one that was not: in small what
benchmarks/kills.py does with many kills."""

import pytest

from benchmarks import kills, launches


@pytest.mark.slow
def test_kills_do_not_change_a_bit(tmp_path):
    reference = tmp_path / 'reference'
    launches.finish([kills.start(reference)])
    found = list(kills.disturbed(tmp_path, num_kills=3, seed=0, longest=15.0))
    assert sum(kill is not None for _, kill in found) == 3
    for workdir, kill in found:
        if kill is None:
            assert kills.differing(workdir, reference) == []

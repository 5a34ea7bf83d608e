"""Times and efficiencies by hand."""

import pytest

from analysis import roofline
from analysis.hlo import Program
from analysis.roofline import CHIPS, Chip

CHIP = Chip(
    flops=10.0,
    hbm_bytes=1.0,
    hbm_bandwidth=5.0,
    link_bandwidth=4.0,
    network_bandwidth=0.5,
    pod=16,
)
# Compiled for 8 chips: sums of 16 bytes.
PROGRAM = Program({'bf16': 60, 'f32': 20}, 10, {'all-reduce': 2 * 7 * 16 // 8}, 0)


def test_what_takes_longest_takes_the_time():
    found = roofline.times(PROGRAM, CHIP)
    assert found == (8.0, 2.0, 7.0)
    assert found.on_chip == found.step == 8.0


@pytest.mark.parametrize(
    ('chips', 'seconds'),
    [
        (1, 0.0),
        (8, 7.0),
        (16, 2 * 15 / 16 * 16 / 4),
        # Each chip of a pod sums a sixteenth between the pods, where bytes are eight times slower.
        (32, 2 * 15 / 16 * 16 / 4 + 2 * 1 / 2 * 1 / 0.5),
        (64, 2 * 15 / 16 * 16 / 4 + 2 * 3 / 4 * 1 / 0.5),
    ],
)
def test_efficiency_is_the_share_of_time_on_the_chip(chips, seconds):
    found = roofline.efficiency(PROGRAM, CHIP, compiled_for=8, num=chips)
    assert found == pytest.approx(8 / (8 + seconds))


def test_what_sends_nothing_scales_perfectly():
    quiet = PROGRAM._replace(sent_bytes={})
    assert roofline.efficiency(quiet, CHIP, 8, 1024) == 1.0


def test_devices_of_a_chip_share_it():
    half = CHIPS['v4'].share(2)
    assert half.flops == 275e12 / 2
    assert half.pod == 2 * CHIPS['v4'].pod
    assert half.pod * half.link_bandwidth == CHIPS['v4'].pod * CHIPS['v4'].link_bandwidth


def test_published_links_are_published_one_way():
    """Of v5e 1,600 Gbit/s, and of v5p 4,800."""
    assert CHIPS['v5e'].link_bandwidth * 8 == 1600e9
    assert CHIPS['v5p'].link_bandwidth * 8 == 4800e9

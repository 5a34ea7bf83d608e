"""How long a program takes at least on chips of a kind, and how well it scales.

From the published peaks of the chips, and what hlo.py reads off the program:

    on chip         max(operations / peak, traffic / memory bandwidth)
    between chips   bytes sent / bandwidth of all links of a chip
    efficiency      on chip / (on chip + between chips)

Efficiency is that of as many images per chip on any number of them, with nothing overlapped: XLA
hides part of the communication behind the gradient. Elementwise operations have no published peak,
and count by their traffic alone.
"""

from typing import NamedTuple

from analysis.hlo import Program


class Chip(NamedTuple):
    """Published peaks of a chip: its operations in bfloat16, its memory, its links one way."""

    flops: float  # a second
    hbm_bytes: float
    hbm_bandwidth: float  # bytes a second
    link_bandwidth: float  # bytes a second, all links together
    network_bandwidth: float  # bytes a second, between chips of two pods
    pod: int  # chips that links join

    def share(self, devices: int) -> 'Chip':
        """What each of so many devices that make up a chip has of it."""
        shared = {name: value / devices for name, value in self._asdict().items()}
        return Chip(**{**shared, 'pod': self.pod * devices})


class Times(NamedTuple):
    """Seconds of one run of a program, if each were all there is to it."""

    compute: float
    memory: float
    communication: float

    @property
    def on_chip(self) -> float:
        """Operations and traffic overlap."""
        return max(self.compute, self.memory)

    @property
    def step(self) -> float:
        """So does communication."""
        return max(self)


def times(program: Program, chip: Chip) -> Times:
    """The least time that operations, traffic and communication take."""
    return Times(
        sum(program.flops.values()) / chip.flops,
        program.hbm_bytes / chip.hbm_bandwidth,
        sum(program.sent_bytes.values()) / chip.link_bandwidth,
    )


def efficiency(program: Program, chip: Chip, compiled_for: int, num: int) -> float:
    """The share of its time that each of `num` chips computes, from a program for `compiled_for`.

    Bytes grow as (n - 1) / n, as of rings. Between pods, each chip sums its share of a pod's sum.
    """
    found = times(program, chip)
    whole = found.communication * compiled_for / max(compiled_for - 1, 1)
    inside, pods = min(num, chip.pod), -(-num // chip.pod)
    between = whole * (inside - 1) / inside
    if pods > 1:
        slower = chip.link_bandwidth / chip.network_bandwidth
        between += whole * (pods - 1) / pods / inside * slower
    return found.on_chip / (found.on_chip + between)


# Google's documentation of each (docs.cloud.google.com/tpu/docs/v5e, v6e, v5p, v4), and of v4's
# links its system architecture page. Links are published for both directions, or in bits for one:
# v5e has 400 GB/s, which are 1,600 Gbit/s out of a chip. A pod's network is divided by its chips.
CHIPS = {
    'v5e': Chip(197e12, 16e9, 819e9, 200e9, 25e9 / 8, 256),
    'v6e': Chip(918e12, 32e9, 1638e9, 400e9, 100e9 / 8, 256),
    'v5p': Chip(459e12, 95e9, 2765e9, 600e9, 50e9 / 8, 8960),
    'v4': Chip(275e12, 32e9, 1200e9, 300e9, 25e9 / 8, 4096),
}

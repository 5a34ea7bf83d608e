"""Where the time of a network's training step goes, by kind of operation.

    python -m benchmarks.profile [--case 'VE, nf = 32'] [--part step] [--devices 1] [--runs 5]

XLA's profiler says how long each instruction of the compiled program ran, and the program's text
what it is: a convolution (or one fused with what follows it), a product of matrices, or a pass over
arrays. Milliseconds are those of one run, summed over all threads that begin an instruction; of
convolutions and products, which share themselves among all threads of their device, they are those
of the first.
"""

import argparse
import collections
import pathlib
import re
import tempfile

import jax
from jax.profiler import ProfileData

from benchmarks import machine, networks
from devices import sharding

COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) \([^\n]*\{\n(.*?)\n\}', re.S | re.M)
INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%([\w.\-]+) = \S+ ([\w\-]+)\((.*)', re.M)
WIDEST_KERNEL = 5  # of a network's convolutions; those of kernels' gradients are as wide as images


def kinds_of(program_text: str) -> dict[str, str]:
    """The kind of each instruction that runs, by its name."""
    bodies = dict(COMPUTATION.findall(program_text))
    found = {}
    for body in bodies.values():
        for name, operation, rest in INSTRUCTION.findall(body):
            called = re.search(r'calls=%([\w.\-]+)', rest)
            source = re.search(r'op_name="([^"]*)"', rest)
            content = f' {operation}({rest}' + (bodies.get(called[1], '') if called else '')
            found[name] = kind(operation, name, content, source[1] if source else '')
    return found


def kind(operation: str, name: str, content: str, source: str) -> str | None:
    """What an instruction is; None: it contains others, which are counted."""
    if operation in ('while', 'conditional', 'call'):
        return None
    in_gradient = 'transpose(' in source
    if 'convolution(' in content:
        sizes = re.findall(r'window=\{size=(\d+)', content)
        if sizes and int(sizes[0]) > WIDEST_KERNEL:
            return 'convolutions: gradient of kernels'
        return 'convolutions: ' + ('gradient of inputs' if in_gradient else 'forward')
    if re.search(r'\bdot\(', content):
        return 'matrix products'
    if operation.startswith('all-'):
        return 'sums over devices, and waiting for them'
    if 'cond/' in source:
        return 'optimiser, moving average'
    if re.search(r'\b(xor|shift-left)\(', content):
        return 'random numbers'
    if ' transpose(' in content or operation == 'copy':  # '/transpose(' is a gradient's source.
        return 'transpositions, copies'
    return 'passes over arrays: ' + ('gradient' if in_gradient else 'forward')


def profiled(program: networks.Program, runs: int) -> collections.Counter:
    """Milliseconds a run by kind."""
    kinds, total = kinds_of(program.text), collections.Counter()
    jax.block_until_ready(program.run())
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            for _ in range(runs):
                jax.block_until_ready(program.run())
        (path,) = pathlib.Path(directory).rglob('*.xplane.pb')
        planes = ProfileData.from_file(str(path)).planes
        events = [event for plane in planes for line in plane.lines for event in line.events]
        for event in events:
            if kinds.get(event.name):
                total[kinds[event.name]] += event.duration_ns / 1e6 / runs
    return total


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--case', default='VE), nf = 32', help='a part of the name of a case')
    parser.add_argument('--part', default='step', choices=['step', 'forward'])
    parser.add_argument('--devices', type=int, default=1)
    parser.add_argument('--runs', type=int, default=5)
    args = parser.parse_args()
    (name,) = [name for name in networks.CASES if args.case in name]
    if args.devices > 1:
        sharding.use_cores(args.devices)
    formulation = 'ours' if args.devices > 1 else 'ours, one device'
    found = networks.programs(*networks.CASES[name], [formulation])
    total = profiled(found[formulation][args.part], args.runs)
    everything = sum(total.values())
    print(f'{name}, {args.part}, {args.devices} device(s); {machine.name()}\n')
    print('| | ms | share |\n| --- | --- | --- |')
    for what, milliseconds in total.most_common():
        print(f'| {what} | {milliseconds:.1f} | {milliseconds / everything:.0%} |')


if __name__ == '__main__':
    main()

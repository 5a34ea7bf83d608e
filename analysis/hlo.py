"""What a compiled program does on each device, read off XLA's text of it: operations, traffic with
memory, communication.

Such a text is a list of computations, and each of them a list of instructions:

    %name = type opcode(%operand, ...), attribute=..., attribute=...

Loops, calls and fusions name the computations that they run. The body of a loop counts as often as
it runs; XLA says so where it knows, as for every scan. Loops that end by their data count once, and
the text says how many there are.
"""

import math
import re
from collections import Counter
from typing import NamedTuple


class Program(NamedTuple):
    """What one device does in one run.

    `flops` are those of convolutions and products, two a multiply-add, by the type of what is
    multiplied. `hbm_bytes` are read or written outside fusions; a fusion that looks at a part of an
    array counts as reading all of it. `sent_bytes` are those that a device sends, by kind of
    collective, if collectives go round a ring. `open_loops` are loops of unknown length.
    """

    flops: dict[str, int]
    hbm_bytes: int
    sent_bytes: dict[str, int]
    open_loops: int

    def part(self, runs: int) -> 'Program':
        """One of so many equal parts."""
        flops, sent = (
            {name: number // runs for name, number in counts.items()}
            for counts in (self.flops, self.sent_bytes)
        )
        return Program(flops, self.hbm_bytes // runs, sent, self.open_loops)


class Instruction(NamedTuple):
    """One line of a computation; `type` as XLA writes it, with layouts.

    `text` is what stands between the parentheses: `operands` are the names in it.
    """

    type: str
    opcode: str
    text: str
    operands: tuple[str, ...]
    attributes: str


Computation = dict[str, Instruction]


def read(text: str, num_devices: int) -> Program:
    """What a program for so many devices does, from `compiled.as_text()`."""
    computations, entry = parse(text)
    found = _Reader(computations, num_devices).count(entry)

    def of(kind):
        return {name: number for (k, name), number in found.items() if k == kind and number}

    return Program(of('flops'), found['hbm', ''], of('sent'), found['open loops', ''])


# Text


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations by name, and the name of the one that is the program."""
    computations, entry, current = {}, '', {}
    for line in text.splitlines():
        if header := HEADER.match(line):
            current = computations.setdefault(header['name'], {})
            entry = header['name'] if header['entry'] else entry
        elif assignment := ASSIGNMENT.match(line):
            current[assignment['name']] = _instruction(COMMENT.sub('', assignment['rest']))
    return computations, entry


HEADER = re.compile(r'(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$')
ASSIGNMENT = re.compile(r'\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<rest>.*)')
COMMENT = re.compile(r'/\*.*?\*/')
NAME = re.compile(r'%([\w.-]+)')


def _instruction(text: str) -> Instruction:
    end = _closing(text) if text.startswith('(') else text.index(' ')
    opcode, _, rest = text[end:].lstrip().partition('(')
    end_operands = _closing('(' + rest) - 2
    inside, attributes = rest[:end_operands], rest[end_operands + 1 :]
    return Instruction(text[:end], opcode, inside, tuple(NAME.findall(inside)), attributes)


def _closing(text: str) -> int:
    """The end of the parenthesis with which the text starts."""
    depth = 0
    for match in re.finditer(r'[()]', text):
        depth += 1 if match.group() == '(' else -1
        if depth == 0:
            return match.end()
    return len(text)


# Types


class Array(NamedTuple):
    """An array of a type; `in_hbm`, unless its layout puts it into faster memory."""

    dtype: str
    shape: tuple[int, ...]
    in_hbm: bool

    @property
    def num_bytes(self) -> int:
        """Without what a layout pads."""
        return math.ceil(math.prod(self.shape) * BITS.get(self.dtype, 0) / 8)


ARRAY = re.compile(r'([a-z]\w*)\[([\d,<=]*)\](\{[^}]*\})?')
# Other memories have numbers in layouts; 0 is HBM.
ELSEWHERE = re.compile(r'S\([1-9]\d*\)')
BITS = {
    'pred': 8,
    **{f'{kind}{bits}': bits for kind in ('s', 'u') for bits in (2, 4, 8, 16, 32, 64)},
    **{'bf16': 16, 'f16': 16, 'f32': 32, 'f64': 64, 'c64': 64, 'c128': 128},
    **dict.fromkeys(('f8e4m3fn', 'f8e5m2', 'f8e4m3b11fnuz', 'f8e4m3', 'f8e3m4'), 8),
}


def arrays(type_text: str) -> list[Array]:
    """The arrays of a type, which is one or a tuple."""
    return [
        Array(
            dtype,
            tuple(int(n.strip('<=')) for n in shape.split(',') if n),
            not ELSEWHERE.search(layout),
        )
        for dtype, shape, layout in ARRAY.findall(type_text)
    ]


# Counting


class _Reader:
    """Counts computations, each once however often it is called."""

    def __init__(self, computations: dict[str, Computation], num_devices: int):
        self._computations = computations
        self._num_devices = num_devices
        self._counted: dict[tuple[str, bool], Counter] = {}

    def count(self, name: str, fused: bool = False) -> Counter:
        """All that a computation does; what is `fused` keeps its arrays to itself."""
        if (name, fused) not in self._counted:
            total = Counter()
            computation = self._computations[name]
            for instruction in computation.values():
                total.update(self._of_instruction(instruction, computation, fused))
            self._counted[name, fused] = total
        return self._counted[name, fused]

    def _of_instruction(self, instruction, computation, fused):
        opcode = instruction.opcode
        if opcode.endswith(('-done', '-update')):
            return Counter()  # What has started was counted there.
        operands = [computation[name].type for name in instruction.operands if name in computation]
        total = Counter(self._own(instruction, operands))
        if not fused and opcode not in NO_TRAFFIC:
            total['hbm', ''] += traffic(instruction, operands)
        total.update(self._called(instruction, computation, fused))
        return total

    def _own(self, instruction, operands):
        """Operations and communication of the instruction itself."""
        kind = instruction.opcode.removesuffix('-start')
        if kind in SENT:
            size = group_size(instruction.attributes, self._num_devices)
            num_bytes = sum(a.num_bytes for type_text in operands for a in arrays(type_text))
            return {('sent', kind): round(SENT[kind](size) * num_bytes)}
        if kind in MULTIPLY_ADDS:
            (out,) = arrays(instruction.type)
            a, b = (arrays(type_text)[0] for type_text in operands[:2])
            multiply_adds = math.prod(out.shape) * MULTIPLY_ADDS[kind](a, b, instruction.attributes)
            return {('flops', a.dtype): 2 * multiply_adds}
        return {}

    def _called(self, instruction, computation, fused):
        called = {key: NAME.findall(value) for key, value in CALLED.findall(instruction.attributes)}
        if instruction.opcode == 'while':
            return self._loop(instruction, called['body'][0], called['condition'][0], computation)
        if instruction.opcode == 'conditional':
            return self._branches([name for names in called.values() for name in names])
        names = called.get('calls', [])
        if instruction.opcode == 'call':
            names = called.get('to_apply', names)
        total = Counter()
        for name in names:
            total.update(self.count(name, fused or instruction.opcode == 'fusion'))
        return total

    def _branches(self, names):
        """The dearest, but for those that call the host, which raise errors."""
        quiet = [name for name in names if not self._calls_host(name)]
        return max((self.count(name) for name in quiet or names), key=Counter.total)

    def _calls_host(self, name):
        return any(
            'is_host_transfer=true' in instruction.attributes
            or 'callback' in instruction.attributes
            for instruction in self._computations[name].values()
        )

    def _loop(self, instruction, body, condition, computation):
        length = trip_count(instruction, computation, self._computations[condition])
        once = self.count(body) + self.count(condition)
        total = Counter({key: number * (length or 1) for key, number in once.items()})
        # Not so the loops in it: they are as many as the text has.
        total['open loops', ''] = once['open loops', ''] + (length is None)
        return total


CALLED = re.compile(
    r'(calls|to_apply|body|condition|branch_computations|true_computation|false_computation)='
    r'(\{[^}]*\}|%[\w.-]+)'
)
KNOWN_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def trip_count(loop: Instruction, around: Computation, condition: Computation) -> int | None:
    """How often the body of a loop runs; None if that is not in the text.

    XLA says so, or the loop is one of JAX's, which count up by one from a constant while they are
    below another.
    """
    if known := KNOWN_TRIP_COUNT.search(loop.attributes):
        return int(known[1])
    root = list(condition.values())[-1]
    if root.opcode != 'compare' or 'direction=LT' not in root.attributes:
        return None
    index, limit = (condition[name] for name in root.operands)
    if index.opcode != 'get-tuple-element' or limit.opcode != 'constant':
        return None
    start = _initial(loop, around, int(re.search(r'index=(\d+)', index.attributes)[1]))
    return None if start is None else max(0, int(limit.text) - start)


def _initial(loop: Instruction, around: Computation, index: int) -> int | None:
    """The constant that is this member of the tuple with which a loop begins."""
    found = around[loop.operands[0]]
    while found.opcode in ('tuple', *SAME_VALUE):
        operand = found.operands[index if found.opcode == 'tuple' else 0]
        found = around[operand]
    return int(found.text) if found.opcode == 'constant' else None


SAME_VALUE = ('copy', 'bitcast', 'copy-done', 'copy-start')


# Communication: what each of n devices sends per byte that it brings, round a ring.

SENT = {
    'all-reduce': lambda n: 2 * (n - 1) / n,
    'all-gather': lambda n: n - 1,
    'reduce-scatter': lambda n: (n - 1) / n,
    'all-to-all': lambda n: (n - 1) / n,
    'ragged-all-to-all': lambda n: (n - 1) / n,
    'collective-permute': lambda n: 1,
    'collective-broadcast': lambda n: 1,
}

GROUPS = re.compile(
    r'replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\]<=|mesh\[(.*?)\] ?\{(.*?)\}[,\s])'
)
AXIS = re.compile(r"'?(\w+)'?=(\d+)")
CHOSEN = re.compile(r"'?(\w+)'?(?::\(\d+\)(\d+))?")


def group_size(attributes: str, num_devices: int) -> int:
    """How many devices a collective joins, in any of the ways that XLA writes groups."""
    groups = GROUPS.search(attributes)
    if not groups:
        return num_devices
    listed, iota, mesh, axes = groups.groups()
    if listed is not None:
        return listed.count(',') + 1
    if iota is not None:
        return int(iota)
    sizes = dict(AXIS.findall(mesh))
    return math.prod(int(part or sizes[axis]) for axis, part in CHOSEN.findall(axes))


# Operations: multiply-adds for each number of the output.


def _of_convolution(a: Array, b: Array, attributes: str) -> int:
    kernel = re.search(r'dim_labels=\w+_(\w+)->', attributes)[1]
    return math.prod(size for size, label in zip(b.shape, kernel, strict=True) if label != 'o')


def _of_dot(a: Array, b: Array, attributes: str) -> int:
    contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', attributes)[1]
    return math.prod(a.shape[int(i)] for i in contracted.split(',') if i)


MULTIPLY_ADDS = {'convolution': _of_convolution, 'dot': _of_dot}


# Memory

# Names for what is there already, and what only calls other computations.
NO_TRAFFIC = {
    *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'iota'),
    *('while', 'conditional', 'call', 'partition-id', 'replica-id', 'opt-barrier', 'async-start'),
}


def traffic(instruction: Instruction, operands: list[str]) -> int:
    """Bytes that an instruction reads from HBM or writes there."""
    opcode = instruction.opcode.removesuffix('-start')
    written = arrays(instruction.type)
    read = [a for type_text in operands for a in arrays(type_text)]
    if opcode != instruction.opcode:
        # A tuple: what is written, of slices after their operand, and the state of the transfer.
        written = written[1:2] if opcode == 'slice' else written[:1]
    if opcode in ('slice', 'dynamic-slice', 'gather'):
        read = [a._replace(in_hbm=read[0].in_hbm) for a in written]
    if opcode == 'dynamic-update-slice':
        written = read = read[1:2]
    return sum(a.num_bytes for a in [*written, *read] if a.in_hbm)

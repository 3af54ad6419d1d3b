"""What stands in an optimised program, as XLA writes it: exchanges between devices, bytes and cycles by layer."""

import collections
import re
from math import prod

COLLECTIVE = re.compile(r' = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\(')
ARRAY = re.compile(r'\b(pred|bf16|[a-z]\d+)\[([\d,]*)\]')
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
INSTRUCTION = re.compile(r'\s+(?:ROOT )?%(\S+) = (.*?) ([a-z][\w-]*)\((.*)')
LAYER = re.compile(r'stem|conv\d(?=/)|stage\d_block\d|mixed\w+|Dense_\d|BatchNorm_\d')
# They read and write nothing; or, of copies and the like in two halves, are left out with the other half.
FREE = ('parameter', 'constant', 'bitcast', 'tuple', 'get-tuple-element', 'copy-start', 'copy-done', 'async-start',
        'async-done', 'slice-start')


def size_of(arrays: list[tuple[str, str]]) -> float:
    """Bytes of arrays as HLO writes them, [('f32', '8,64')]."""
    bits = [8 if dtype == 'pred' else int(re.sub(r'\D', '', dtype)) for dtype, _ in arrays]
    return sum(b * prod(map(int, filter(None, dims.split(',')))) for b, (_, dims) in zip(bits, arrays, strict=True)) / 8


def collectives(program: str) -> dict[tuple[str, str], list]:
    """{(kind, dtypes): [(bytes of the result on a device, its shape, whose it is)]} of optimised HLO."""
    found = collections.defaultdict(list)
    for line in program.splitlines():
        if match := COLLECTIVE.search(line):
            arrays = ARRAY.findall(match[1])
            if match[3] and match[2] == 'all-gather':  # its start gives the operands, too
                arrays = arrays[len(arrays) // 2:]
            elif match[3] and match[2] == 'collective-permute':
                arrays = arrays[1:2]
            shapes = ' '.join(f'{dtype}[{dims}]' for dtype, dims in arrays)
            origin = re.search(r'op_name="([^"]*)"', line)
            dtypes = ' and '.join(sorted({dtype for dtype, _ in arrays}))
            found[match[2], dtypes].append((size_of(arrays), shapes[:80], origin[1][-100:] if origin else ''))
    return found


def bytes_by_layer(program: str) -> dict[str, tuple[float, float]]:
    """{layer: bytes that instructions read and write (forward, backward)}; 'other' are those that name no layer.

    An instruction, a fusion mostly, reads its operands and writes its results, all of each.
    """
    found, shapes = collections.defaultdict(lambda: [0.0, 0.0]), {}
    for line in program[program.index('\nENTRY'):].splitlines():
        if match := INSTRUCTION.match(line):
            name, shapes[match[1]], kind, rest = match.groups()
            if kind in FREE:
                continue
            arrays = [shapes[name], *(shapes.get(operand, '') for operand in re.findall(r'%([\w.-]+)', rest))]
            layer, backward = _part_of(line)
            found[layer][backward] += size_of(ARRAY.findall(' '.join(arrays)))
    return {layer: tuple(sizes) for layer, sizes in sorted(found.items())}


def cycles_by_layer(program: str) -> dict[str, tuple[int, int]]:
    """{layer: cycles that instructions take (forward, backward)} as a TPU's compiler estimates them; {} of others."""
    found = collections.defaultdict(lambda: [0, 0])
    for line in program[program.index('\nENTRY'):].splitlines():
        if estimate := CYCLES.search(line):
            layer, backward = _part_of(line)
            found[layer][backward] += int(estimate[1])
    return {layer: tuple(cycles) for layer, cycles in sorted(found.items())}


def _part_of(line: str) -> tuple[str, bool]:
    """The layer that an instruction belongs to, or 'other', and whether it is of the backward pass."""
    origin = re.search(r'op_name="([^"]*)"', line)
    origin = origin[1] if origin else ''
    layer = LAYER.search(origin)
    return layer[0] if layer else 'other', 'transpose(' in origin

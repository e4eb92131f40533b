"""Work of a program of XLA on its device, counted in the text of the compiled module.

Each instruction of the entry computation that computes or copies is a launch: a fusion,
a call of a library, such as cuDNN's, a copy, an exchange between devices. What is in a
loop counts as often as the loop runs. Names and numbers of tensors, and constants, are
none.
"""

import collections
import math
import re

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
TENSOR = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]")
CALLED = re.compile(r"(?:to_apply|body|calls)=%?([\w.\-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')

FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "iota",
}
KINDS = {"fusion": "fusions", "custom-call": "library calls", "copy": "copies"}
EXCHANGES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "reduce-scatter",
    "collective-permute",
)


def counted(text):
    """Launches, loops, bytes and exchanges of a compiled module, a dictionary."""
    computations, entry = _computations(text)
    kinds, totals = collections.Counter(), collections.Counter()
    _add(computations, entry, 1, kinds, totals)
    return {
        "launches": sum(kinds.values()),
        "kinds": dict(kinds),
        "loops": totals["loops"],
        "bytes": totals["bytes"],
        "exchanges": {name: kinds[name] for name in EXCHANGES if name in kinds},
        "exchanged_bytes": totals["exchanged"],
    }


def _computations(text):
    """The instructions of each computation by its name, and the name of the entry."""
    computations, entry, name = {}, None, None
    for line in text.splitlines():
        if begin := COMPUTATION.match(line):
            name = begin[2]
            computations[name] = []
            entry = name if begin[1] else entry
        elif line.startswith("}"):
            name = None
        elif name is not None and (found := INSTRUCTION.match(line)):
            computations[name].append(found.groups())
    return computations, entry


def _add(computations, name, times, kinds, totals):
    """Adds what a computation does when it runs so many times."""
    types = {result: kind for result, kind, _, _ in computations[name]}
    for _, result, operation, rest in computations[name]:
        plain = operation.removesuffix("-start")
        if operation in FREE or operation.endswith("-done"):
            continue
        if operation in ("while", "call", "conditional"):
            trips = int(found[1]) if (found := TRIPS.search(rest)) else 1
            totals["loops"] += operation == "while"
            for inner in CALLED.findall(rest):
                _add(computations, inner, times * trips, kinds, totals)
            continue
        operands = re.findall(r"%([\w.\-]+)", rest.partition("), ")[0])
        read = sum(_bytes(types.get(operand, "")) for operand in operands)
        kinds[KINDS.get(plain, plain)] += times
        totals["bytes"] += times * (read + _bytes(result))
        totals["exchanged"] += times * read * (plain in EXCHANGES)


def _bytes(kind):
    """The bytes of the tensors in a type."""
    total = 0
    for letters, bits, shape in TENSOR.findall(kind):
        elements = math.prod(int(size) for size in shape.split(",") if size)
        # A boolean takes a byte.
        total += elements * (1 if letters == "pred" else int(bits or 8) // 8)
    return total

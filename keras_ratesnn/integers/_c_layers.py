"""Each kind of layer of a network of integers, in C: a function of the program, the
layer and its number.

An input that is not 0 adds its row of weights to the sums of all output channels. So
each layer with weights first lists the inputs that are not 0, at the cost of one
comparison each. It then adds up one place of the output after the other, and its
neurons step at once: no currents are kept.
"""

from typing import Any

import numpy as np

from keras_ratesnn.integers._c_text import (
    INDICES,
    SIGNED,
    SIZES,
    inside_of,
    loop,
    size_of,
    type_of,
)
from keras_ratesnn.integers._windows import counts_of, least_common_multiple

WEIGHTED = ("conv", "depthwise", "dense")


def _weighted(program, layer, number):
    """Sums of rows of weights: a row for each input and place of the kernel."""
    kernel = program.network.constants[f"w/{layer.name}"]
    *size, inputs, row = kernel.shape
    height, width = size or (1, 1)
    source, output = program.source(layer), program.output_of(layer)
    (rows, columns), (out_rows, out_columns) = (
        image.shape[:2] if size else (1, 1) for image in (source, layer)
    )
    channels = layer.shape[-1]
    weights = program.constant(f"weights_{number}", kernel)
    sums = type_of(min(layer.least, -1), layer.largest, 2)
    index, lists, value = _list(program, source, rows * columns, inputs)
    down, across = layer.facts.get("stride", (1, 1))
    (top, _), (left, _) = layer.facts.get("pad", ((0, 0), (0, 0)))
    channel = f"{index}[place * {inputs} + e]"
    product = f"{value}*row++"
    if value and source.largest * np.abs(kernel.astype("int32")).max(initial=0) < 2**15:
        product = f"short_product({product})"
    # By pointers: compilers that join such loops for several rows make them many times
    # as slow.
    per_event = [
        f"const int8_t *row = rows + {channel} * {row};",
        f"{sums} *to = "
        f"sums{f' + {channel} * {row}' if layer.kind == 'depthwise' else ''};",
        f"const {sums} *end = to + {row};",
        f"while (to != end) {{ *to = ({sums})(*to + {product}); to++; }}",
    ]
    if value:
        per_event.insert(0, f"const int32_t u = event_value[place * {inputs} + e];")
    taps = [
        f"const int place = (y * {down} + ky - {top}) * {columns} + x * {across} + kx "
        f"- {left};",
        f"const int8_t *rows = {weights} + (ky * {width} + kx) * {inputs * row};",
        "int e;",
    ]
    inside = loop("e", "event_count[place]", per_event)
    zero = layer.facts.get("pad_value", 0)
    padded = np.any(layer.facts.get("pad", 0))
    body = ["int x, y, kx, ky, c;", *lists]
    if padded:
        y_inside = f"y * {down} + ky >= {top} && y * {down} + ky < {top + rows}"
        x_inside = (
            f"x * {across} + kx >= {left} && x * {across} + kx < {left + columns}"
        )
        inside = [f"if ({y_inside} && {x_inside}) {{", *inside_of(inside), "}"]
        if zero:
            to = f"sums[i * {row} + c]" if layer.kind == "depthwise" else "sums[c]"
            padding_code = [
                f"const int8_t *row = rows + i * {row};",
                f"for (c = 0; c < {row}; c++) {to} = ({sums})({to} + {zero} * row[c]);",
            ]
            inside[-1:] = [
                "} else {",
                *inside_of(["int i;", *loop("i", inputs, padding_code)]),
                "}",
            ]
    kernel_loops = loop("ky", height, loop("kx", width, [*taps, *inside]))
    at_place = [
        f"{sums} sums[{channels}];",
        "memset(sums, 0, sizeof sums);",
        *kernel_loops,
        *_sink(
            program, layer, output, f"(y * {out_columns} + x) * {channels}", channels
        ),
    ]
    return [*body, *loop("y", out_rows, loop("x", out_columns, at_place))]


def _list(program, source, positions, channels):
    """The code that lists the inputs that are not 0, the name of the array of their
    channels, and the factor of a row of weights."""
    buffer = program.buffer(source.name)
    index = (
        "index8" if channels <= 2**8 else "index16" if channels < 2**16 else "index32"
    )
    program.events[index] = max(program.events[index], positions * channels)
    program.events["count"] = max(program.events["count"], positions)
    keeps_values = source.largest > 1
    at = f"x * {channels} + n"
    inner = [f"event_{index}[{at}] = ({INDICES[index]})c;"]
    if keeps_values:
        program.events["value"] = max(program.events["value"], positions * channels)
        program.value_type = max(
            program.value_type, buffer.type, key=lambda kind: SIZES[kind]
        )
        inner.append(f"event_value[{at}] = from[x * {channels} + c];")
    inner.append(f"n += from[x * {channels} + c] != 0;")
    per_place = [
        "int n = 0;",
        *loop("c", channels, inner),
        f"event_count[x] = ({program.counts()})n;",
    ]
    lists = [
        f"const {buffer.type} *from = {buffer.pointer};",
        *loop("x", positions, per_place),
    ]
    return f"event_{index}", lists, "u * " if keeps_values else ""


def _sink(program, layer, output, offset, channels):
    """The code that uses the sums of one place."""
    if output.kind == "readout":
        return _logits(program, output, "sums[c]")
    to = program.buffer(output.name)
    if output is layer:
        return loop(
            "c", channels, [f"({to.pointer})[{offset} + c] = ({to.type})sums[c];"]
        )
    return _step(program, output, offset, channels, "sums[c]")


def _step(program, layer, offset, channels, current):
    """The step of the neurons of one place, whose current is a C expression of `c`."""
    facts, number = layer.facts, program.numbers[layer.name]
    to, constants = program.buffer(layer.name), program.network.constants
    bits = facts["membrane_bits"]
    kind = next(name for name, end in SIGNED.items() if 2 ** (bits - 1) <= end)
    membranes = f"membranes_{number}"
    if not any(f" {membranes}[" in state for state in program.states):
        program.static(membranes, kind, size_of(layer))
        _at_rest(program, layer, membranes, kind, channels)
    theta, bias = (
        program.constant(f"{key}_{number}", constants[f"{short}/{layer.name}"], 2)
        for key, short in (("thresholds", "theta"), ("biases", "bias"))
    )
    lines = [
        f"const int32_t threshold = {theta}[c];",
        f"int32_t v = {membranes}[{offset} + c];",
    ]
    m, k = np.asarray(facts["decay_m"]), facts["decay_k"]
    if (m != 2**k).any():
        factor = (
            f"{program.constant(f'decays_{number}', m, 2)}[c]"
            if m.ndim and len(set(m.tolist())) > 1
            else str(int(m.flat[0]))
        )
        lines.append("v = 0;" if factor == "0" else f"v = shifted(v * {factor}, {k});")
    lines.append(f"v += {_scaled(program, layer, current)} + {bias}[c];")
    spiked = f"({to.pointer})[{offset} + c]"
    reset = (
        "v - s * threshold"
        if not facts["hard"]
        else f"s > 0 ? {_reset_value(program, layer, number)} : v"
    )
    if facts.get("reset_delay"):
        lines.append(f"{{ const int32_t s = {spiked}; v = {reset}; }}")
    lines.append(
        f"v = v > {2 ** (bits - 1) - 1} ? {2 ** (bits - 1) - 1} : v < "
        f"-{2 ** (bits - 1)} ? -{2 ** (bits - 1)} : v;"
    )
    lines.append(f"{{ const int32_t s = {_spikes(facts['levels'])};")
    lines.append(f"{spiked} = ({to.type})s;")
    after = "v" if facts.get("reset_delay") else f"({reset})"
    lines.append(f"{membranes}[{offset} + c] = ({kind}){after}; }}")
    return loop("c", channels, lines)


def _at_rest(program, layer, membranes, kind, channels):
    v0 = program.network.constants[f"v0/{layer.name}"]
    if not v0.any():
        program.resets.append(f"memset({membranes}, 0, sizeof {membranes});")
        return
    values = program.constant(f"rest_{program.numbers[layer.name]}", v0, 2)
    program.resets.append(
        f"for (i = 0; i < {size_of(layer)}; i++) {membranes}[i] = ({kind}){values}[i % "
        f"{channels}];"
    )


def _reset_value(program, layer, number):
    value = np.asarray(layer.facts["v_reset"])
    return (
        f"{program.constant(f'resets_{number}', value, 2)}[c]"
        if value.ndim
        else str(int(value))
    )


def _scaled(program, layer, current):
    if "shift" in layer.facts:
        n = max(layer.facts["shift"])
        half = f" + {2 ** (n - 1)}" if n else ""
        return f"(int32_t)shifted64({current}{half}, {n})"
    f = layer.facts["f"]
    if f >= 0:
        return f"{current} * {2**f}" if f else current
    return f"shifted({current} + {2 ** (-f - 1)}, {-f})"


def _neurons(program, layer, number):
    channels, names = layer.shape[-1], layer.sources
    sources = [program.buffer(name) for name in names]
    values = [f"({source.pointer})[x + c]" for source in sources]
    if "shift" in layer.facts:
        factors = [
            program.constant(
                f"factors_{number}_{index}",
                program.network.constants[f"multiplier/{layer.name}/{name}"],
                2,
            )
            for index, name in enumerate(names)
        ]
        shifts = layer.facts["shift"]
        current = " + ".join(
            f"(int64_t){value} * {factor}[c]"
            + (f" * {2 ** (max(shifts) - shift)}" if shift < max(shifts) else "")
            for value, factor, shift in zip(values, factors, shifts, strict=True)
        )
    else:
        (current,) = values
    return [
        "int x, c;",
        *loop(
            "x",
            size_of(layer),
            _step(program, layer, "x", channels, current),
            step=channels,
        ),
    ]


def _readout(program, layer, number):
    return [
        "int c;",
        *_logits(program, layer, f"({program.buffer(layer.sources[0]).pointer})[c]"),
    ]


def _logits(program, layer, value):
    """Adds to the logits what a readout makes of values, a C expression of `c`."""
    bias = program.constant(
        f"bias_{program.numbers[layer.name]}",
        program.network.constants[f"bias/{layer.name}"],
    )
    return loop(
        "c",
        size_of(layer),
        [f"logits[c] += {value} * {2 ** layer.facts['f']} + {bias}[c];"],
    )


def _add(program, layer, number):
    to = program.buffer(layer.name)
    factors = layer.facts.get("factors", [1] * len(layer.sources))
    terms = [
        f"({program.buffer(name).pointer})[i]" + (f" * {factor}" if factor != 1 else "")
        for name, factor in zip(layer.sources, factors, strict=True)
    ]
    return [
        "int i;",
        *loop(
            "i",
            size_of(layer),
            [f"({to.pointer})[i] = ({to.type})({' + '.join(terms)});"],
        ),
    ]


def _global_sum(program, layer, number):
    source, to = program.buffer(layer.sources[0]), program.buffer(layer.name)
    positions = size_of(program.source(layer)) // layer.shape[0]
    inner = [
        "int32_t sum = 0;",
        *loop(
            "x", positions, [f"sum += ({source.pointer})[x * {layer.shape[0]} + c];"]
        ),
    ]
    return [
        "int x, c;",
        *loop("c", layer.shape[0], [*inner, f"({to.pointer})[c] = ({to.type})sum;"]),
    ]


def _sum_pool(program, layer, number):
    counts = counts_of(program.source(layer).shape, layer.facts)
    factors = least_common_multiple(counts) // counts
    factor = ""
    if (factors != 1).any():
        factor = (
            f" * {program.constant(f'shares_{number}', factors)}[y * "
            f"{layer.shape[1]} + x]"
        )
    return _pool(
        program, layer, "int32_t found = 0;", "found += value;", f"found{factor}"
    )


def _max_pool(program, layer, number):
    least = program.source(layer).least
    return _pool(
        program,
        layer,
        f"int32_t found = {least};",
        "if (value > found) found = value;",
        "found",
    )


def _pool(program, layer, start, combine, result):
    source, to = program.buffer(layer.sources[0]), program.buffer(layer.name)
    rows, columns, channels = program.source(layer).shape
    (height, width), (down, across) = layer.facts["size"], layer.facts["stride"]
    (top, _), (left, _) = layer.facts["pad"]
    tap = [
        f"const int row = y * {down} + ky - {top}, column = x * {across} + kx - "
        f"{left};",
        f"if (row >= 0 && row < {rows} && column >= 0 && column < {columns}) {{",
        f"    const int32_t value = ({source.pointer})[(row * {columns} + column) * "
        f"{channels} + c];",
        f"    {combine}",
        "}",
    ]
    at = f"(y * {layer.shape[1]} + x) * {channels} + c"
    inner = [
        start,
        *loop("ky", height, loop("kx", width, tap)),
        f"({to.pointer})[{at}] = ({to.type})({result});",
    ]
    return [
        "int x, y, kx, ky, c;",
        *loop(
            "y", layer.shape[0], loop("x", layer.shape[1], loop("c", channels, inner))
        ),
    ]


def _spikes(levels):
    """The C expression of spikes of a membrane v."""
    if levels == 0:
        return "v >= threshold"
    return " + ".join(
        f"(2 * v >= {2 * j - 1} * threshold{' + 1' if j % 2 else ''})"
        for j in range(1, levels + 1)
    )


BODIES: dict[str, Any] = {
    **dict.fromkeys(WEIGHTED, _weighted),
    "add": _add,
    "sum_pool": _sum_pool,
    "global_sum": _global_sum,
    "max_pool": _max_pool,
    "neurons": _neurons,
    "readout": _readout,
}
"""The functions that give the lines of C of each kind of layer; `flatten` has none."""

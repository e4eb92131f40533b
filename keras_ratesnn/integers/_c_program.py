"""The C99 program of a network of integers, written layer by layer.

An input that is not 0 adds its row of weights to the sums of all output channels. So each layer with weights first lists the
inputs that are not 0, at the cost of one comparison each. It then adds up one place of the output after the other, and its
neurons step at once: no currents are kept. Outputs share memory with others that are no longer needed.
"""

import dataclasses
import textwrap
from typing import Any

import numpy as np

from keras_ratesnn.integers._network import INPUT, IntegerLayer, IntegerNetwork, counts_of

_WEIGHTED = ("conv", "depthwise", "dense")
_UNSIGNED = (("uint8_t", 2**8, 1), ("uint16_t", 2**16, 2))
_SIGNED = (("int8_t", 2**7, 1), ("int16_t", 2**15, 2), ("int32_t", 2**31, 4))
_INDICES = {"index8": "uint8_t", "index16": "uint16_t", "index32": "int32_t"}
_SIZES = {"uint8_t": 1, "int8_t": 1, "uint16_t": 2, "int16_t": 2, "int32_t": 4}


def type_of(least: int, largest: int, at_least: int = 1) -> str:
    """The smallest C type of a range, of at least so many bytes if it is signed."""
    if least >= 0:
        for name, end, _ in _UNSIGNED:
            if largest < end:
                return name
    return next(name for name, end, size in _SIGNED if size >= at_least and -end <= least and largest < end)


@dataclasses.dataclass
class _Buffer:
    """Where the output of a layer is: a C expression of a pointer, and the type of an element."""

    pointer: str
    type: str


class CProgram:
    """Writes the program.

    Args:
        network: `IntegerNetwork`.
        name: String, what public names begin with.
        cache_input: Boolean, whether what depends on the input alone is kept over all steps.

    Attributes:
        text: String, the program.
        constant_bytes: Integer, the size of weights and other constants.
        static_bytes: Integer, the size of what changes.
    """

    def __init__(self, network: IntegerNetwork, name: str, cache_input: bool) -> None:
        self.network, self.name = network, name
        self.caches = cache_input and not network.temporal_input
        self.constant_bytes = self.static_bytes = 0
        self.constants: list[str] = []
        self.states: list[str] = []
        self.resets: list[str] = []
        self.functions: list[str] = []
        self.consumers: dict[str, list] = {}
        for layer in network.layers:
            for name in () if layer.kind == "flatten" else layer.sources:
                self.consumers.setdefault(self._real(name), []).append(layer)
        self.numbers = {layer.name: number for number, layer in enumerate(network.layers)}
        self.buffers: dict[str, _Buffer] = {INPUT: _Buffer("input", "uint8_t")}
        self.arenas: dict[str, int] = {}
        self.value_type = "uint8_t"
        self.events = {"index8": 0, "index16": 0, "index32": 0, "value": 0, "count": 0}
        once, each = self._split()
        self._place(once), self._place(each)
        calls = [[self._function(layer) for layer in layers] for layers in (once, each)]
        self.text = self._whole(*calls)

    def _split(self):
        """The layers that run once for an input, and those that run at each step; without those that others do in passing."""
        once = [layer for layer in self.network.layers if layer.static and self.caches]
        each = [layer for layer in self.network.layers if layer not in once]
        return tuple([layer for layer in layers if self._runs(layer)] for layers in (once, each))

    def _runs(self, layer):
        """Whether a layer has a function of its own: not if it only renames, or acts on the sums of the layer before it."""
        return layer.kind != "flatten" and not (
            layer.sources[0] in self.numbers and self._follower(self._source(layer)) is layer
        )

    def _source(self, layer):
        return self.network.of(layer.sources[0])

    def _is_cached(self, layer):
        return self.caches and layer.static and any(not other.static for other in self.consumers.get(layer.name, []))

    def _follower(self, layer):
        """The layer that takes the sums of another one place by place, or `None`."""
        consumers = self.consumers.get(layer.name, [])
        if layer.kind not in _WEIGHTED or len(consumers) != 1 or (self.caches and layer.static):
            return None
        (consumer,) = consumers
        return consumer if consumer.sources == (layer.name,) and "f" in consumer.facts else None

    def _output_of(self, layer):
        """The layer whose output a function writes."""
        return self._follower(layer) or layer

    def _place(self, layers):
        """Gives outputs places in shared arrays: those that are needed at the same time do not overlap."""
        taken: dict[str, list] = {}
        last_uses: dict[str, int] = {}
        for number, layer in enumerate(layers):
            for name in layer.sources:
                last_uses[self._real(name)] = number
        last_uses[self._real(self.network.layers[-1].name)] = len(layers)
        for number, layer in enumerate(layers):
            output = self._output_of(layer)
            if output.kind == "readout":
                continue
            kind, kept = self._type(output), f"kept_{self.numbers[output.name]}"
            if self._is_cached(output) or output.facts.get("reset_delay"):
                self.buffers[output.name] = _Buffer(self._static(kept, kind, _size(output)), kind)
                if output.facts.get("reset_delay"):
                    self.resets.append(f"memset({kept}, 0, sizeof {kept});")
                continue
            last = max(last_uses.get(output.name, number), number)
            offset = _free(taken.setdefault(kind, []), number, last, _size(output))
            self.buffers[output.name] = _Buffer(f"shared_{kind} + {offset}" if offset else f"shared_{kind}", kind)
            self.arenas[kind] = max(self.arenas.get(kind, 0), offset + _size(output))

    def _real(self, name):
        """The layer that a name stands for, behind flatten layers."""
        layer = self.network.of(name)
        return self._real(layer.sources[0]) if layer.kind == "flatten" else name

    def _buffer(self, name):
        return self.buffers[self._real(name)]

    def _type(self, layer):
        is_current = layer.least < 0 or layer.kind in _WEIGHTED
        return type_of(min(layer.least, -1) if is_current else 0, layer.largest, 2)

    def _static(self, name, kind, size):
        self.states.append(f"static {kind} {name}[{size}];")
        self.static_bytes += _SIZES[kind] * size
        return name

    def _constant(self, name, values, at_least=1):
        """Adds an array of constants and returns its name."""
        values = np.asarray(values).ravel()
        kind = type_of(min(int(values.min()), -1), int(values.max()), at_least)
        text = textwrap.fill(", ".join(map(str, values.tolist())), 120, initial_indent="    ", subsequent_indent="    ")
        self.constants.append(f"static const {kind} {name}[{values.size}] = {{\n{text}\n}};")
        self.constant_bytes += _SIZES[kind] * values.size
        return name

    def _function(self, layer):
        """Writes the function of a layer and returns its call."""
        number = self.numbers[layer.name]
        body = getattr(self, f"_{layer.kind}")(layer, number)
        parameters, arguments = [], []
        if INPUT in map(self._real, layer.sources):
            parameters, arguments = ["const uint8_t *input"], ["input"]
        if self._output_of(layer).kind == "readout":
            parameters, arguments = [*parameters, "int32_t *logits"], [*arguments, "logits"]
        what = " and ".join(dict.fromkeys([layer.name, self._output_of(layer).name]))
        self.functions.append(
            f"/* {what}: {' x '.join(map(str, self._output_of(layer).shape))} */\n"
            f"static void run_{number}({', '.join(parameters) or 'void'})\n{{\n{_indented(body)}\n}}"
        )
        return f"run_{number}({', '.join(arguments)});"

    def _conv(self, layer, number):
        kernel = self.network.constants[f"w/{layer.name}"]
        height, width, inputs, outputs = kernel.shape
        return self._weighted(layer, number, (height, width), inputs, outputs)

    def _depthwise(self, layer, number):
        height, width, inputs, each = self.network.constants[f"w/{layer.name}"].shape
        return self._weighted(layer, number, (height, width), inputs, each)

    def _dense(self, layer, number):
        inputs, outputs = self.network.constants[f"w/{layer.name}"].shape
        return self._weighted(layer, number, (1, 1), inputs, outputs)

    def _weighted(self, layer, number, size, inputs, row):
        """Sums of rows of weights: `row` weights for each input and place of the kernel."""
        source, output = self._source(layer), self._output_of(layer)
        rows, columns = source.shape[:2] if layer.kind != "dense" else (1, 1)
        out_rows, out_columns = layer.shape[:2] if layer.kind != "dense" else (1, 1)
        channels = layer.shape[-1]
        kernel = self.network.constants[f"w/{layer.name}"]
        weights = self._constant(f"weights_{number}", kernel)
        sums = type_of(min(layer.least, -1), layer.largest, 2)
        index, lists, value = self._list(source, rows * columns, inputs)
        (down, across), ((top, _), (left, _)) = layer.facts.get("stride", (1, 1)), layer.facts.get("pad", ((0, 0), (0, 0)))
        channel = f"{index}[place * {inputs} + e]"
        product = f"{value}*row++"
        if value and source.largest * np.abs(kernel.astype("int32")).max(initial=0) < 2**15:
            # All vector units multiply integers of 16 bits, not all those of 32.
            product = f"(int16_t)({product})"
        # By pointers: compilers that join such loops for several rows make them many times as slow.
        per_event = [
            f"const int8_t *row = rows + {channel} * {row};",
            f"{sums} *to = sums{f' + {channel} * {row}' if layer.kind == 'depthwise' else ''};",
            f"const {sums} *end = to + {row};",
            f"while (to != end) {{ *to = ({sums})(*to + {product}); to++; }}",
        ]
        if value:
            per_event.insert(0, f"const int32_t u = event_value[place * {inputs} + e];")
        taps = [
            f"const int place = (y * {down} + ky - {top}) * {columns} + x * {across} + kx - {left};",
            f"const int8_t *rows = {weights} + (ky * {size[1]} + kx) * {inputs * row};",
            "int e;",
        ]
        inside = _loop("e", "event_count[place]", per_event)
        zero = layer.facts.get("pad_value", 0)
        padded = np.any(layer.facts.get("pad", 0))
        body = ["int x, y, kx, ky, c;", *lists]
        if padded:
            y_inside = f"y * {down} + ky >= {top} && y * {down} + ky < {top + rows}"
            x_inside = f"x * {across} + kx >= {left} && x * {across} + kx < {left + columns}"
            inside = [f"if ({y_inside} && {x_inside}) {{", *_in(inside), "}"]
            if zero:
                of_padding = [
                    f"const int8_t *row = rows + i * {row};",
                    f"for (c = 0; c < {row}; c++) sums[{'c' if layer.kind != 'depthwise' else f'i * {row} + c'}] = "
                    f"({sums})(sums[{'c' if layer.kind != 'depthwise' else f'i * {row} + c'}] + {zero} * row[c]);",
                ]
                inside[-1:] = ["} else {", *_in(["int i;", *_loop("i", inputs, of_padding)]), "}"]
            # The place of the padding is that of no input.
        kernel_loops = _loop("ky", size[0], _loop("kx", size[1], [*taps, *inside]))
        at_place = [
            f"{sums} sums[{channels}];",
            "memset(sums, 0, sizeof sums);",
            *kernel_loops,
            *self._sink(layer, output, f"(y * {out_columns} + x) * {channels}", channels),
        ]
        return [*body, *_loop("y", out_rows, _loop("x", out_columns, at_place))]

    def _list(self, source, places, channels):
        """The code that lists what is not 0, the array of channels, and the factor of a row."""
        buffer = self._buffer(source.name)
        index = "index8" if channels <= 2**8 else "index16" if channels < 2**16 else "index32"
        self.events[index] = max(self.events[index], places * channels)
        self.events["count"] = max(self.events["count"], places)
        keeps_values = source.largest > 1
        at = f"x * {channels} + n"
        inner = [f"event_{index}[{at}] = ({_INDICES[index]})c;"]
        if keeps_values:
            self.events["value"] = max(self.events["value"], places * channels)
            self.value_type = max(self.value_type, buffer.type, key=lambda kind: _SIZES[kind])
            inner.append(f"event_value[{at}] = from[x * {channels} + c];")
        inner.append(f"n += from[x * {channels} + c] != 0;")
        per_place = ["int n = 0;", *_loop("c", channels, inner), f"event_count[x] = ({self._counts()})n;"]
        lists = [f"const {buffer.type} *from = {buffer.pointer};", *_loop("x", places, per_place)]
        return f"event_{index}", lists, "u * " if keeps_values else ""

    def _counts(self):
        """The type of numbers of inputs."""
        shapes = [self.network.input_shape, *(layer.shape for layer in self.network.layers)]
        return "int32_t" if max(map(max, shapes)) >= 2**16 else "uint16_t"

    def _sink(self, layer, output, offset, channels):
        """What happens with the sums of one place."""
        if output.kind == "readout":
            bias, f = (
                self._constant(f"bias_{self.numbers[output.name]}", self.network.constants[f"bias/{output.name}"]),
                output.facts["f"],
            )
            return _loop("c", channels, [f"logits[c] += sums[c] * {2**f} + {bias}[c];"])
        to = self._buffer(output.name)
        if output is layer:
            return _loop("c", channels, [f"({to.pointer})[{offset} + c] = ({to.type})sums[c];"])
        return self._step(output, offset, channels, "sums[c]")

    def _step(self, layer, offset, channels, current):
        """The step of the neurons of one place, whose current is a C expression of `c`."""
        facts, number, to = layer.facts, self.numbers[layer.name], self._buffer(layer.name)
        constants = self.network.constants
        bits = facts["membrane_bits"]
        kind = next(name for name, end, _ in _SIGNED if 2 ** (bits - 1) <= end)
        membranes = f"membranes_{number}"
        if not any(f" {membranes}[" in state for state in self.states):
            self._static(membranes, kind, _size(layer))
            self._at_rest(layer, membranes, kind, channels)
        theta, bias = (
            self._constant(f"{key}_{number}", constants[f"{short}/{layer.name}"], 2)
            for key, short in (("thresholds", "theta"), ("biases", "bias"))
        )
        lines = [f"const int32_t threshold = {theta}[c];", f"int32_t v = {membranes}[{offset} + c];"]
        m, k = np.asarray(facts["decay_m"]), facts["decay_k"]
        if (m != 2**k).any():
            factor = (
                f"{self._constant(f'decays_{number}', m, 2)}[c]" if m.ndim and len(set(m.tolist())) > 1 else str(int(m.flat[0]))
            )
            lines.append("v = 0;" if factor == "0" else f"v = shifted(v * {factor}, {k});")
        lines.append(f"v += {self._scaled(layer, current)} + {bias}[c];")
        spiked = f"({to.pointer})[{offset} + c]"
        reset = "v - s * threshold" if not facts["hard"] else f"s > 0 ? {self._reset_value(layer, number)} : v"
        if facts.get("reset_delay"):
            lines.append(f"{{ const int32_t s = {spiked}; v = {reset}; }}")
        lines.append(
            f"v = v > {2 ** (bits - 1) - 1} ? {2 ** (bits - 1) - 1} : v < -{2 ** (bits - 1)} ? -{2 ** (bits - 1)} : v;"
        )
        lines.append(f"{{ const int32_t s = {_spikes(facts['levels'])};")
        lines.append(f"{spiked} = ({to.type})s;")
        after = "v" if facts.get("reset_delay") else f"({reset})"
        lines.append(f"{membranes}[{offset} + c] = ({kind}){after}; }}")
        return _loop("c", channels, lines)

    def _at_rest(self, layer, membranes, kind, channels):
        v0 = self.network.constants[f"v0/{layer.name}"]
        if not v0.any():
            self.resets.append(f"memset({membranes}, 0, sizeof {membranes});")
            return
        values = self._constant(f"rest_{self.numbers[layer.name]}", v0, 2)
        self.resets.append(f"for (i = 0; i < {_size(layer)}; i++) {membranes}[i] = ({kind}){values}[i % {channels}];")

    def _reset_value(self, layer, number):
        value = np.asarray(layer.facts["v_reset"])
        return f"{self._constant(f'resets_{number}', value, 2)}[c]" if value.ndim else str(int(value))

    def _scaled(self, layer, current):
        if "shift" in layer.facts:
            n = layer.facts["shift"]
            half = f" + {2 ** (n - 1)}" if n else ""
            return f"(int32_t)shifted64({current}{half}, {n})"
        f = layer.facts["f"]
        if f >= 0:
            return f"{current} * {2**f}" if f else current
        return f"shifted({current} + {2 ** (-f - 1)}, {-f})"

    def _neurons(self, layer, number):
        channels, names = layer.shape[-1], layer.sources
        sources = [self._buffer(name) for name in names]
        found = [f"({source.pointer})[x + c]" for source in sources]
        if "shift" in layer.facts:
            factors = [
                self._constant(f"factors_{number}_{place}", self.network.constants[f"multiplier/{layer.name}/{name}"], 2)
                for place, name in enumerate(names)
            ]
            current = " + ".join(f"(int64_t){value} * {factor}[c]" for value, factor in zip(found, factors, strict=True))
        else:
            (current,) = found
        return ["int x, c;", *_loop("x", _size(layer), self._step(layer, "x", channels, current), step=channels)]

    def _readout(self, layer, number):
        source, f = self._buffer(layer.sources[0]), layer.facts["f"]
        bias = self._constant(f"bias_{number}", self.network.constants[f"bias/{layer.name}"])
        return ["int c;", *_loop("c", _size(layer), [f"logits[c] += ({source.pointer})[c] * {2**f} + {bias}[c];"])]

    def _add(self, layer, number):
        to, factors = self._buffer(layer.name), layer.facts.get("factors", [1] * len(layer.sources))
        terms = [
            f"({self._buffer(name).pointer})[i]" + (f" * {factor}" if factor != 1 else "")
            for name, factor in zip(layer.sources, factors, strict=True)
        ]
        return ["int i;", *_loop("i", _size(layer), [f"({to.pointer})[i] = ({to.type})({' + '.join(terms)});"])]

    def _global_sum(self, layer, number):
        source, to = self._buffer(layer.sources[0]), self._buffer(layer.name)
        places = _size(self._source(layer)) // layer.shape[0]
        inner = ["int32_t sum = 0;", *_loop("x", places, [f"sum += ({source.pointer})[x * {layer.shape[0]} + c];"])]
        return ["int x, c;", *_loop("c", layer.shape[0], [*inner, f"({to.pointer})[c] = ({to.type})sum;"])]

    def _sum_pool(self, layer, number):
        counts = counts_of(self._source(layer).shape, layer.facts)
        factors = np.lcm.reduce(counts.ravel()) // counts
        factor = ""
        if (factors != 1).any():
            factor = f" * {self._constant(f'shares_{number}', factors)}[y * {layer.shape[1]} + x]"
        return self._pool(layer, "int32_t found = 0;", "found += value;", f"found{factor}")

    def _max_pool(self, layer, number):
        least = self._source(layer).least
        return self._pool(layer, f"int32_t found = {least};", "if (value > found) found = value;", "found")

    def _pool(self, layer, start, combine, result):
        source, to = self._buffer(layer.sources[0]), self._buffer(layer.name)
        rows, columns, channels = self._source(layer).shape
        (height, width), (down, across) = layer.facts["size"], layer.facts["stride"]
        (top, _), (left, _) = layer.facts["pad"]
        tap = [
            f"const int row = y * {down} + ky - {top}, column = x * {across} + kx - {left};",
            f"if (row >= 0 && row < {rows} && column >= 0 && column < {columns}) {{",
            f"    const int32_t value = ({source.pointer})[(row * {columns} + column) * {channels} + c];",
            f"    {combine}",
            "}",
        ]
        at = f"(y * {layer.shape[1]} + x) * {channels} + c"
        inner = [start, *_loop("ky", height, _loop("kx", width, tap)), f"({to.pointer})[{at}] = ({to.type})({result});"]
        return ["int x, y, kx, ky, c;", *_loop("y", layer.shape[0], _loop("x", layer.shape[1], _loop("c", channels, inner)))]

    def _whole(self, once, each):
        network, name, upper = self.network, self.name, self.name.upper()
        for kind, size in self.arenas.items():
            if size:
                self._static(f"shared_{kind}", kind, size)
        for key, kind in {**_INDICES, "count": self._counts()}.items():
            if self.events[key]:
                self._static(f"event_{key}", kind, self.events[key])
        if self.events["value"]:
            self._static("event_value", self.value_type, self.events["value"])
        last = network.layers[-1]
        if last.kind != "readout":
            buffer = self._buffer(last.name)
            each = [*each, f"for (c = 0; c < {network.classes}; c++) logits[c] += ({buffer.pointer})[c];"]
            counter = ["int c;"]
        else:
            counter = []
        size = int(np.prod(network.input_shape))
        helpers = "".join(text for key, text in _HELPERS.items() if any(f"{key}(" in function for function in self.functions))
        takes_input = any("(input" in call for call in each)
        given = "const uint8_t *input, " if takes_input else ""
        handed = "input, " if takes_input else ""
        reset = (["int i;"] if any("i++" in line for line in self.resets) else []) + self.resets
        begin = f"static void begin(const uint8_t *input)\n{{\n{_indented(once)}\n}}\n\n" if once else ""
        step = ["begin(input);" if once else "", f"advance({handed}logits);"]
        if not takes_input and not once:
            step.insert(0, "(void)input;")
        frames = f" + t * {upper}_INPUT_SIZE" if network.temporal_input else ""
        start = [
            f"{name}_reset();",
            f"for (c = 0; c < {upper}_CLASSES; c++) logits[c] = 0;",
            "begin(input);" if once else "",
        ]
        advance = f"advance({handed and f'input{frames}, '}logits);"
        best = f"for (c = 1; c < {upper}_CLASSES; c++) if (logits[c] > logits[best]) best = c;"
        run = [
            "int t, c, best = 0;",
            *start,
            f"for (t = 0; t < {upper}_TIMESTEPS; t++) {advance}",
            best,
            "return best;",
        ]
        run_until_sure = [
            "int t, c, best = 0, sure = 0;",
            *start,
            f"for (t = 0; t < {upper}_TIMESTEPS && !sure; t++) {{",
            f"    {advance}",
            "    best = 0;",
            f"    {best}",
            "    sure = 1;",
            f"    for (c = 0; c < {upper}_CLASSES; c++)",
            "        if (c != best && (int64_t)logits[best] - logits[c] < (int64_t)margin * (t + 1)) sure = 0;",
            "}",
            "*steps = t;",
            "return best;",
        ]
        signature = f"{name}_classify_until_sure(const uint8_t *input, int32_t margin, int32_t *logits, int *steps)"
        shape = " x ".join(map(str, network.input_shape))
        frames_note = f", a frame for each of {network.timesteps} steps" if network.temporal_input else ""
        return (
            f"/* {name}: a spiking network of integers, {network.timesteps} time steps.\n"
            f" * Input: {shape} uint8, channels last{frames_note}; values up to {network.largest_input}.\n"
            f" * Real logits: {network.unit / network.timesteps:.9g} times the integer ones.\n"
            f" * Constants: {self.constant_bytes} bytes. Memory: {self.static_bytes} bytes. */\n\n"
            "#include <stdint.h>\n#include <string.h>\n\n"
            f"#define {upper}_INPUT_SIZE {size}\n#define {upper}_CLASSES {network.classes}\n"
            f"#define {upper}_TIMESTEPS {network.timesteps}\n\n"
            f"/* Starts a new sequence. */\nvoid {name}_reset(void);\n"
            f"/* One time step: adds its logits. */\nvoid {name}_step(const uint8_t *input, int32_t *logits);\n"
            "/* All time steps of one input: its logits, and the class. */\n"
            f"int {name}_classify(const uint8_t *input, int32_t *logits);\n"
            "/* As few time steps as one input needs: stops after t of them if the largest logit leads by margin * t. */\n"
            f"int {signature};\n\n"
            + helpers
            + "\n".join([*self.constants, "", *self.states, ""])
            + "\n"
            + "\n\n".join(self.functions)
            + f"\n\n{begin}static void advance({given}int32_t *logits)\n{{\n{_indented([*counter, *each])}\n}}\n\n"
            f"void {name}_reset(void)\n{{\n{_indented(reset)}\n}}\n\n"
            f"void {name}_step(const uint8_t *input, int32_t *logits)\n{{\n{_indented(filter(None, step))}\n}}\n\n"
            f"int {name}_classify(const uint8_t *input, int32_t *logits)\n{{\n{_indented(filter(None, run))}\n}}\n\n"
            f"int {signature}\n{{\n{_indented(filter(None, run_until_sure))}\n}}\n"
        )


_HELPERS = {
    "shifted": (
        "/* x / 2^n rounded down, also for negative x. */\n"
        "static inline int32_t shifted(int32_t x, int n)\n{\n    return x >= 0 ? x >> n : ~(~x >> n);\n}\n\n"
    ),
    "shifted64": "static inline int64_t shifted64(int64_t x, int n)\n{\n    return x >= 0 ? x >> n : ~(~x >> n);\n}\n\n",
}


def _spikes(levels):
    """The C expression of spikes of a membrane v."""
    if levels == 0:
        return "v >= threshold"
    return " + ".join(f"(2 * v >= {2 * j - 1} * threshold{' + 1' if j % 2 else ''})" for j in range(1, levels + 1))


def _size(layer: IntegerLayer) -> int:
    return int(np.prod(layer.shape))


def _free(taken: list[Any], first: int, last: int, size: int) -> int:
    """The first place of an array where nothing is from a call to another; it is taken then."""
    offset = 0
    for begin, end, start, stop in sorted(taken, key=lambda entry: entry[2]):
        if begin <= last and first <= end and start < offset + size:
            offset = max(offset, stop)
    taken.append((first, last, offset, offset + size))
    return offset


def _loop(variable, count, body, step=None):
    advance = f"{variable} += {step}" if step and step > 1 else f"{variable}++"
    return [f"for ({variable} = 0; {variable} < {count}; {advance}) {{", *_in(body), "}"]


def _in(lines):
    return [f"    {line}" for line in lines]


def _indented(lines):
    return "\n".join(_in(lines))

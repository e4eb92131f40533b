"""The C99 program of a network of integers: a function for each layer, their memory,
and the functions that users call.

Outputs share memory with others that are no longer needed.
"""

import dataclasses
import textwrap
from typing import Any

import numpy as np

from keras_ratesnn.integers._c_layers import BODIES, WEIGHTED
from keras_ratesnn.integers._c_text import INDICES, SIZES, indented, size_of, type_of
from keras_ratesnn.integers._network import IntegerNetwork
from keras_ratesnn.integers._schema import INPUT, plain


@dataclasses.dataclass
class _Buffer:
    """Where the output of a layer is: a C expression of a pointer, and the type of an
    element."""

    pointer: str
    type: str


class CProgram:
    """Writes the program.

    Args:
        network: `IntegerNetwork`.
        name: String, what public names begin with.
        cache_input: Boolean, whether what depends on the input alone is kept over all
            steps.

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
        self.numbers = {
            layer.name: number for number, layer in enumerate(network.layers)
        }
        self.buffers: dict[str, _Buffer] = {INPUT: _Buffer("input", "uint8_t")}
        self.arenas: dict[str, int] = {}
        self.value_type = "uint8_t"
        self.events = {"index8": 0, "index16": 0, "index32": 0, "value": 0, "count": 0}
        once, at_each_step = self._split()
        self._place(once)
        self._place(at_each_step)
        calls = [
            [self._function(layer) for layer in layers]
            for layers in (once, at_each_step)
        ]
        self.text = self._whole(*calls)

    def _split(self):
        """The layers that run once for an input, and those that run at each step;
        without those that other layers do in passing."""
        once = [layer for layer in self.network.layers if layer.static and self.caches]
        at_each_step = [layer for layer in self.network.layers if layer not in once]
        return tuple(
            [layer for layer in layers if self._runs(layer)]
            for layers in (once, at_each_step)
        )

    def _runs(self, layer):
        """Whether a layer has a function of its own: not if it only renames, or acts on
        the sums of the layer before it."""
        return layer.kind != "flatten" and not (
            layer.sources[0] in self.numbers
            and self._follower(self.source(layer)) is layer
        )

    def source(self, layer):
        return self.network.of(layer.sources[0])

    def _is_cached(self, layer):
        return (
            self.caches
            and layer.static
            and any(
                not consumer.static for consumer in self.consumers.get(layer.name, [])
            )
        )

    def _follower(self, layer):
        """The layer that takes the sums of another one place by place, or `None`."""
        consumers = self.consumers.get(layer.name, [])
        if (
            layer.kind not in WEIGHTED
            or len(consumers) != 1
            or (self.caches and layer.static)
        ):
            return None
        (consumer,) = consumers
        return (
            consumer
            if consumer.sources == (layer.name,) and "f" in consumer.facts
            else None
        )

    def output_of(self, layer):
        """The layer whose output the function of a layer writes."""
        return self._follower(layer) or layer

    def _place(self, layers):
        """Gives outputs places in shared arrays: those that are needed at the same time
        do not overlap."""
        taken: dict[str, list] = {}
        last_uses: dict[str, int] = {}
        for number, layer in enumerate(layers):
            for name in layer.sources:
                last_uses[self._real(name)] = number
        last_uses[self._real(self.network.layers[-1].name)] = len(layers)
        for number, layer in enumerate(layers):
            output = self.output_of(layer)
            if output.kind == "readout":
                continue
            kind, name = self._type(output), f"kept_{self.numbers[output.name]}"
            if self._is_cached(output) or output.facts.get("reset_delay"):
                self.buffers[output.name] = _Buffer(
                    self.static(name, kind, size_of(output)), kind
                )
                if output.facts.get("reset_delay"):
                    self.resets.append(f"memset({name}, 0, sizeof {name});")
                continue
            last = max(last_uses.get(output.name, number), number)
            offset = _free(taken.setdefault(kind, []), number, last, size_of(output))
            self.buffers[output.name] = _Buffer(
                f"shared_{kind} + {offset}" if offset else f"shared_{kind}", kind
            )
            self.arenas[kind] = max(self.arenas.get(kind, 0), offset + size_of(output))

    def _real(self, name):
        """The layer that a name stands for, behind flatten layers."""
        layer = self.network.of(name)
        return self._real(layer.sources[0]) if layer.kind == "flatten" else name

    def buffer(self, name):
        return self.buffers[self._real(name)]

    def _type(self, layer):
        is_current = layer.least < 0 or layer.kind in WEIGHTED
        return type_of(min(layer.least, -1) if is_current else 0, layer.largest, 2)

    def static(self, name, kind, size):
        self.states.append(f"static {kind} {name}[{size}];")
        self.static_bytes += SIZES[kind] * size
        return name

    def constant(self, name, values, at_least=1):
        """Adds an array of constants and returns its name."""
        values = np.asarray(values).ravel()
        kind = type_of(min(int(values.min()), -1), int(values.max()), at_least)
        text = textwrap.fill(
            ", ".join(map(str, values.tolist())),
            120,
            initial_indent="    ",
            subsequent_indent="    ",
        )
        self.constants.append(
            f"static const {kind} {name}[{values.size}] = {{\n{text}\n}};"
        )
        self.constant_bytes += SIZES[kind] * values.size
        return name

    def _function(self, layer):
        """Writes the function of a layer and returns its call."""
        number, output = self.numbers[layer.name], self.output_of(layer)
        body = BODIES[layer.kind](self, layer, number)
        parameters = {}
        if INPUT in map(self._real, layer.sources):
            parameters["input"] = "const uint8_t *input"
        if output.kind == "readout":
            parameters["logits"] = "int32_t *logits"
        what = " and ".join(dict.fromkeys(map(plain, (layer.name, output.name))))
        self.functions.append(
            f"/* {what}: {' x '.join(map(str, output.shape))} */\n"
            f"static void run_{number}({', '.join(parameters.values()) or 'void'})\n"
            f"{{\n{indented(body)}\n}}"
        )
        return f"run_{number}({', '.join(parameters)});"

    def counts(self):
        """The C type of how many inputs are not 0."""
        shapes = [
            self.network.input_shape,
            *(layer.shape for layer in self.network.layers),
        ]
        return "int32_t" if max(map(max, shapes)) >= 2**16 else "uint16_t"

    def _whole(self, once, at_each_step):
        network, name, upper = self.network, self.name, self.name.upper()
        for kind, size in self.arenas.items():
            if size:
                self.static(f"shared_{kind}", kind, size)
        for key, kind in {**INDICES, "count": self.counts()}.items():
            if self.events[key]:
                self.static(f"event_{key}", kind, self.events[key])
        if self.events["value"]:
            self.static("event_value", self.value_type, self.events["value"])
        last = network.layers[-1]
        if last.kind != "readout":
            pointer = self.buffer(last.name).pointer
            at_each_step = [
                "int c;",
                *at_each_step,
                f"for (c = 0; c < {network.classes}; c++) logits[c] += ({pointer})[c];",
            ]
        helpers = "".join(
            text
            for key, text in _HELPERS.items()
            if any(f"{key}(" in function for function in self.functions)
        )
        takes_input = any("(input" in call for call in at_each_step)
        given = "const uint8_t *input, " if takes_input else ""
        handed = "input, " if takes_input else ""
        frames = f" + t * {upper}_INPUT_SIZE" if network.temporal_input else ""
        frame = f"input{frames}, " if takes_input else ""
        index = ["int i;"] if any("i++" in line for line in self.resets) else []
        begin = begin_once = ""
        if once:
            begin = (
                f"static void begin(const uint8_t *input)\n{{\n{indented(once)}\n}}\n\n"
            )
            begin_once = "    begin(input);\n"
        run_steps = (
            "run_steps(const uint8_t *input, int stops, int32_t margin, "
            "int32_t *logits, int *steps)"
        )
        classify_until_sure = (
            f"{name}_classify_until_sure(const uint8_t *input, int32_t margin, "
            "int32_t *logits, int *steps)"
        )
        shape = " x ".join(map(str, network.input_shape))
        frames_note = (
            f", a frame for each of {network.timesteps} steps"
            if network.temporal_input
            else ""
        )
        declarations = "\n".join([*self.constants, "", *self.states, ""])
        functions = "\n\n".join(self.functions)
        # One loop for both ways to classify: compilers then keep the layers inside of
        # it.
        return f"""\
/* {name}: a spiking network of integers, {network.timesteps} time steps.
 * Input: {shape} uint8, channels last{frames_note}; values up to \
{network.largest_input}.
 * Real logits: {network.unit / network.timesteps:.9g} times the integer ones.
 * Constants: {self.constant_bytes} bytes. Memory: {self.static_bytes} bytes. */

#include <limits.h>
#include <stdint.h>
#include <string.h>

#if INT_MAX < 2147483647
#error products need an int of 32 bits
#endif

#define {upper}_INPUT_SIZE {np.prod(network.input_shape)}
#define {upper}_CLASSES {network.classes}
#define {upper}_TIMESTEPS {network.timesteps}

/* Starts a new sequence. */
void {name}_reset(void);
/* One time step: adds its logits. */
void {name}_step(const uint8_t *input, int32_t *logits);
/* All time steps of one input: its logits, and the class. */
int {name}_classify(const uint8_t *input, int32_t *logits);
/* As few time steps as one input needs: stops after t of them if the largest logit \
leads by margin * t. */
int {classify_until_sure};

{helpers}{declarations}
{functions}

{begin}static void advance({given}int32_t *logits)
{{
{indented(at_each_step)}
}}

void {name}_reset(void)
{{
{indented([*index, *self.resets])}
}}

void {name}_step(const uint8_t *input, int32_t *logits)
{{
{begin_once}    advance({handed}logits);
}}

static int {run_steps}
{{
    int t, c, best = 0, sure = 0;
    {name}_reset();
    for (c = 0; c < {upper}_CLASSES; c++) logits[c] = 0;
{begin_once}    for (t = 0; t < {upper}_TIMESTEPS && !sure; t++) {{
        advance({frame}logits);
        best = 0;
        for (c = 1; c < {upper}_CLASSES; c++) if (logits[c] > logits[best]) best = c;
        sure = stops;
        for (c = 0; c < {upper}_CLASSES; c++)
            if (c != best && (int64_t)logits[best] - logits[c] < \
(int64_t)margin * (t + 1)) sure = 0;
    }}
    *steps = t;
    return best;
}}

int {name}_classify(const uint8_t *input, int32_t *logits)
{{
    int steps;
    return run_steps(input, 0, 0, logits, &steps);
}}

int {classify_until_sure}
{{
    return run_steps(input, 1, margin, logits, steps);
}}
"""


_HELPERS = {
    "short_product": """\
/* A product that fits in 16 bits: the oldest vector units multiply no integers \
of 32. */
#ifdef __SSE2__
#define short_product(x) (int16_t)(x)
#else
#define short_product(x) (x)
#endif

""",
    "shifted": """\
/* x / 2^n rounded down, also for negative x. */
static inline int32_t shifted(int32_t x, int n)
{
    return x >= 0 ? x >> n : ~(~x >> n);
}

""",
    "shifted64": """\
static inline int64_t shifted64(int64_t x, int n)
{
    return x >= 0 ? x >> n : ~(~x >> n);
}

""",
}


def _free(taken: list[Any], first: int, last: int, size: int) -> int:
    """The first place of a shared array that is free from the call `first` to the call
    `last`; it is taken then."""
    offset = 0
    for begin, end, start, stop in sorted(taken, key=lambda entry: entry[2]):
        if begin <= last and first <= end and start < offset + size:
            offset = max(offset, stop)
    taken.append((first, last, offset, offset + size))
    return offset

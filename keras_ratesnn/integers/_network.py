"""A network of integers: plain layers and constants, which an executor runs and files
hold."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_ratesnn.integers import _schema
from keras_ratesnn.integers._schema import INPUT
from keras_ratesnn.integers._windows import counts_of, least_common_multiple


@dataclasses.dataclass(frozen=True)
class IntegerLayer:
    """A layer of integers.

    Args:
        name: String.
        kind: `"conv"`, `"depthwise"`, `"dense"`, `"flatten"`, `"add"`, `"sum_pool"`,
            `"global_sum"`, `"max_pool"`, `"neurons"` or `"readout"`.
        sources: Tuple of the names of its inputs.
        shape: Tuple, the shape of its output, channels last, without batch and time.
        least: Integer, no element of its output is below.
        largest: Integer, no element of its output is above.
        static: Boolean, whether its output is the same at every step, if the input is.
        facts: Dict of what belongs to its kind, plain numbers and lists, see
            `load_integers`.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    least: int
    largest: int
    static: bool
    facts: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """Layers in the order in which they run, and their constants.

    Args:
        layers: Tuple of `IntegerLayer`.
        constants: Dict of integer arrays: `w/NAME`, `theta/NAME`, `bias/NAME`,
            `v0/NAME`, `multiplier/NAME/INPUT`.
        timesteps: Integer T.
        temporal_input: Boolean, whether a program has a frame of its input for each
            step.
        input_shape: Tuple, the shape of a frame, channels last.
        largest_input: Integer, the largest value of the input.
        channels_first: Boolean, whether images come with their channels first.
        unit: Float, the real value of a logit of 1 in one step.
    """

    layers: tuple[IntegerLayer, ...]
    constants: dict[str, np.ndarray]
    timesteps: int
    temporal_input: bool
    input_shape: tuple[int, ...]
    largest_input: int = 255
    channels_first: bool = False
    unit: float = 1.0

    @property
    def classes(self) -> int:
        return self.layers[-1].shape[0]

    def of(self, name: str) -> IntegerLayer:
        """A layer by its name; the input counts as one."""
        if name == INPUT:
            return IntegerLayer(
                INPUT, INPUT, (), self.input_shape, 0, self.largest_input, True, {}
            )
        return next(layer for layer in self.layers if layer.name == name)


def make_network(
    layers: Any, constants: Mapping[str, Any], input_shape: Any, **settings: Any
) -> IntegerNetwork:
    """The `IntegerNetwork` of layers as a file has them, dicts with `name`, `kind`,
    `from` and the facts of their kind.

    Args:
        layers: List of these dicts.
        constants: Dict of arrays, or of objects that become arrays; those that no layer
            has are not read.
        input_shape: Tuple.
        **settings: Other arguments of `IntegerNetwork`.

    Raises:
        ValueError: If a layer is of no known kind or lacks something, or a current may
            leave the range of 32 bits.
    """
    network = IntegerNetwork((), {}, input_shape=input_shape, **settings)
    checked_layers = _schema.checked(layers, constants, vars(network))
    integers = {
        name: _integers(name, constants[name])
        for layer in checked_layers
        for name in layer.constants
    }
    network = dataclasses.replace(
        network, constants=integers, input_shape=tuple(input_shape)
    )
    ranges: dict[str, Any] = {INPUT: (0, network.largest_input)}
    for name, kind, names, shape, facts, _ in checked_layers:
        sources = [network.of(source) for source in names]
        source_ranges = [ranges[source] for source in names]
        wrong = _misfit(name, kind, facts, names, source_ranges, integers)
        least, largest = ranges[name] = _range(
            name, kind, facts, sources, source_ranges, integers
        )
        if wrong is None and max(-np.min(least), np.max(largest)) >= 2**31:
            wrong = (
                "whose output does not fit in 32 bits. Give it fewer inputs or smaller "
                "weights"
            )
        if wrong:
            raise _schema.refused(f"layer {name!r} of kind {kind!r} {wrong}")
        static = kind != "neurons" and all(source.static for source in sources)
        made = IntegerLayer(
            name,
            kind,
            names,
            shape,
            int(np.min(least)),
            int(np.max(largest)),
            static,
            facts,
        )
        network = dataclasses.replace(network, layers=(*network.layers, made))
    if network.timesteps * np.maximum(-least, largest).max() >= 2**31:
        raise _schema.refused(
            f"logits whose sums over {network.timesteps} time steps do not fit in 32 "
            "bits"
        )
    return network


def _integers(name, values):
    """A constant in 8, 32 or 64 bits, which must hold it."""
    dtype = {"w": "int8", "multiplier": "int64"}.get(name.split("/")[0], "int32")
    values = np.asarray(values)
    integers = values.astype(dtype)
    if not np.array_equal(integers, values):
        raise _schema.refused(f"numbers in {name} that {dtype} does not hold")
    return integers


def _misfit(name, kind, facts, names, ranges, constants):
    """The fault of the values of a layer; `None` if there is none."""
    if (
        kind not in ("flatten", "max_pool", "neurons", "readout")
        and min(np.min(least) for least, _ in ranges) < 0
    ):
        return "with inputs below 0"
    if facts.get("pad_value", 0) > np.max(ranges[0][1]):
        return f"with pad_value={facts['pad_value']}, more than its inputs"
    if kind != "neurons":
        return None
    theta = constants[f"theta/{name}"].astype("int64")
    bias = constants[f"bias/{name}"].astype("int64")
    v0 = constants[f"v0/{name}"].astype("int64")
    highest = max(1, facts["levels"]) * theta.max()
    bits, decay_m = facts["membrane_bits"], np.max(facts["decay_m"])
    begin, most = np.append(v0, facts["v_reset"]), 2 ** (bits - 1)
    if begin.min() < -most or begin.max() >= most:
        return (
            f"whose membranes of {bits} bits would begin at "
            f"{begin[np.abs(begin).argmax()]}"
        )
    if (
        theta.min() < 1
        or decay_m > 2 ** facts["decay_k"]
        or max(decay_m * most, 2 * highest) > 2**31
    ):
        return (
            "with thresholds below 1, decays above 1, or products with decays or "
            "thresholds that do not fit in 32 bits"
        )
    f = facts.get("f", 0)
    ratios = [2.0 ** max(f, 0)]
    if "shift" in facts:
        multipliers = [
            constants[f"multiplier/{name}/{source}"].astype("float64")
            for source in names
        ]
        ratios = [
            np.abs(factors) / 2.0**n
            for factors, n in zip(multipliers, facts["shift"], strict=True)
        ]
    current = sum(
        np.maximum(-least, largest) * ratio
        for (least, largest), ratio in zip(ranges, ratios, strict=True)
    )
    # Before it saturates, a membrane holds itself, its current with what rounds that,
    # and a reset that was delayed.
    rounding = 2.0 ** max(-f - 1, 0)
    farthest = np.max(current + np.abs(bias)) + rounding + most + highest
    if max(np.max(ratios), farthest) >= 2**31:
        return (
            "whose currents do not fit in 32 bits after their shift. Give it fewer "
            "inputs or smaller weights"
        )
    return None


def _range(name, kind, facts, sources, ranges, constants):
    """The least and the largest value of an output, of each channel or of all of
    them."""
    shape, top = sources[0].shape, np.max(ranges[0][1])
    if f"w/{name}" in constants:
        kernel = constants[f"w/{name}"]
        axes = (0, 1) if kind == "depthwise" else tuple(range(kernel.ndim - 1))
        return tuple(
            clip(kernel, 0).sum(axes, dtype="int64").ravel() * float(top)
            for clip in (np.minimum, np.maximum)
        )
    if kind == "flatten":
        return tuple(
            np.tile(values, math.prod(shape[:-1]) if np.ndim(values) else 1)
            for values in ranges[0]
        )
    if kind == "max_pool":
        return ranges[0]
    if kind == "readout":
        return tuple(
            values * 2.0 ** facts["f"] + constants[f"bias/{name}"]
            for values in ranges[0]
        )
    if kind == "neurons":
        return 0, max(1, facts["levels"])
    if kind == "add":
        factors = facts.get("factors", [1] * len(ranges))
        return 0, np.dot(factors, [np.max(largest) for _, largest in ranges])
    if kind == "global_sum":
        return 0, float(top) * math.prod(shape[:2])
    return 0, float(top) * least_common_multiple(counts_of(shape, facts))

"""A network of integers: plain layers and constants, which an executor runs and files hold."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_ratesnn._core import checks

INPUT = "input"
"""The name by which layers refer to the input."""


@dataclasses.dataclass(frozen=True)
class IntegerLayer:
    """A layer of integers.

    Args:
        name: String.
        kind: `"conv"`, `"depthwise"`, `"dense"`, `"flatten"`, `"add"`, `"sum_pool"`, `"global_sum"`, `"max_pool"`, `"neurons"`
            or `"readout"`.
        sources: Tuple of the names of its inputs.
        shape: Tuple, the shape of its output, channels last, without batch and time.
        least: Integer, no element of its output is below.
        largest: Integer, no element of its output is above.
        static: Boolean, whether its output is the same at every step, if the input is.
        facts: Dict of what belongs to its kind, plain numbers and lists, see `load_integers`.
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
        constants: Dict of integer arrays: `w/NAME`, `theta/NAME`, `bias/NAME`, `v0/NAME`, `multiplier/NAME/INPUT`.
        timesteps: Integer T.
        temporal_input: Boolean, whether a program has a frame of its input for each step.
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
            return IntegerLayer(INPUT, INPUT, (), self.input_shape, 0, self.largest_input, True, {})
        found = next((layer for layer in self.layers if layer.name == name), None)
        if found is None:
            raise ValueError(
                f"Layers of integers must come after their inputs. Received: the input {name!r} of a layer, and no such layer "
                "before it. Write the file with `save_integers`."
            )
        return found


def make_network(
    layers: Sequence[dict[str, Any]], constants: dict[str, np.ndarray], input_shape: Sequence[int], **settings: Any
) -> IntegerNetwork:
    """The `IntegerNetwork` of layers as a file has them, dicts with `name`, `kind`, `from` and the facts of their kind.

    Raises:
        ValueError: If a layer is of no known kind or lacks something, or a current may leave the range of 32 bits.
    """
    network = IntegerNetwork((), constants, input_shape=tuple(input_shape), **settings)
    for name, most in (("timesteps", 2**31 - 1), ("largest_input", 255)):
        checks.integer(name, getattr(network, name), at_least=1, at_most=most)
    for layer in layers:
        facts = {key: value for key, value in layer.items() if key not in ("name", "kind", "from")}
        if isinstance(facts.get("shift"), int):
            # Older files have one for all currents.
            facts["shift"] = [facts["shift"]] * len(layer["from"])
        if layer["kind"] not in _OUTPUTS:
            raise ValueError(
                f"Layers of integers must be of one of the kinds {', '.join(_OUTPUTS)}. Received: layer {layer['name']!r} of "
                f"kind {layer['kind']!r}. Use a version of keras_ratesnn that knows it."
            )
        sources = tuple(network.of(name) for name in layer["from"])
        wrong = _misfit(layer, sources, constants)
        if wrong:
            raise ValueError(
                "Layers of integers must have constants that fit their inputs, and the numbers of their kind. Received: layer "
                f"{layer['name']!r} of kind {layer['kind']!r} {wrong}. Write the file with `save_integers`."
            )
        shape, least, largest = _OUTPUTS[layer["kind"]](layer["name"], facts, sources, constants)
        if max(-least, largest) >= 2**31:
            raise ValueError(
                f"A current must fit in 32 bits. Received: layer {layer['name']!r}, whose output may be from {least} to "
                f"{largest}. Give it fewer inputs or smaller weights."
            )
        static = layer["kind"] != "neurons" and all(source.static for source in sources)
        made = IntegerLayer(layer["name"], layer["kind"], tuple(layer["from"]), shape, least, largest, static, facts)
        network = dataclasses.replace(network, layers=(*network.layers, made))
    return network


def _misfit(layer, sources, constants):
    """What is wrong with the numbers and constants of a layer; `None` if nothing is."""
    kind, channels = layer["kind"], sources[0].shape[-1]
    several = "shift" in layer
    numbers = [*_NUMBERS.get(kind, ()), *(["f"] if kind in ("neurons", "readout") and not several else [])]
    missing = [number for number in numbers if number not in layer]
    if missing:
        return f"without {missing[0]!r}"
    names = [f"{key}/{layer['name']}" for key in _CONSTANTS.get(kind, ())]
    for name in (*names, *(f"multiplier/{layer['name']}/{source.name}" for source in sources if several)):
        if name not in constants:
            return f"without {name}"
        shape = constants[name].shape
        inputs = shape[-2 if kind != "depthwise" else 2 :] if name.startswith("w/") else shape
        if inputs[:1] != (channels,) or len(shape) != {"dense": 2, "conv": 4, "depthwise": 4}.get(kind, 1):
            return f"with {name} of shape {shape} for {channels} channels"
    if kind == "neurons":
        largest = 2 ** (layer["membrane_bits"] - 1)
        begin = np.append(constants[f"v0/{layer['name']}"], layer["v_reset"])
        if begin.min() < -largest or begin.max() >= largest:
            return f"whose membranes of {layer['membrane_bits']} bits would begin at {begin[np.abs(begin).argmax()]}"
        theta = 2 * max(1, layer["levels"]) * int(constants[f"theta/{layer['name']}"].max())
        if max(int(np.abs(layer["decay_m"]).max()) * largest, theta) > 2**31:
            return "whose products with decays or thresholds do not fit in 32 bits"
    return None


def windows_of(size: int, window: int, stride: int, pad: Sequence[int]) -> int:
    """How many windows there are along an axis."""
    return (size + sum(pad) - window) // stride + 1


def places_of(sizes: Sequence[int], window: Sequence[int], facts: dict[str, Any]) -> tuple[int, int]:
    """How many windows there are along both axes of an image, of convolutions and pooling."""
    along = zip(sizes[:2], window, facts["stride"], facts["pad"], strict=True)
    height, width = (windows_of(*axis) for axis in along)
    return height, width


def counts_of(shape: Sequence[int], facts: dict[str, Any]) -> np.ndarray:
    """How many elements of each window of a pooling are inside the image, `(height, width)`."""
    of_axes = []
    for size, window, stride, pad in zip(shape, facts["size"], facts["stride"], facts["pad"], strict=False):
        first = np.arange(windows_of(size, window, stride, pad)) * stride - pad[0]
        of_axes.append(np.minimum(first + window, size) - np.maximum(first, 0))
    return np.multiply.outer(*of_axes)


def _range_of_products(kernel, axes, source):
    """Bounds of sums of products with elements from 0 to the largest of the source."""
    positive, negative = (np.clip(sign * kernel.astype("int64"), 0, None).sum(axes).max(initial=0) for sign in (1, -1))
    return -int(negative) * source.largest, int(positive) * source.largest


def _conv(name, facts, sources, constants):
    kernel = constants[f"w/{name}"]
    shape = (*places_of(sources[0].shape, kernel.shape[:2], facts), kernel.shape[3])
    return shape, *_range_of_products(kernel, (0, 1, 2), sources[0])


def _depthwise(name, facts, sources, constants):
    kernel = constants[f"w/{name}"]
    shape = (*places_of(sources[0].shape, kernel.shape[:2], facts), kernel.shape[2] * kernel.shape[3])
    return shape, *_range_of_products(kernel, (0, 1), sources[0])


def _dense(name, facts, sources, constants):
    kernel = constants[f"w/{name}"]
    return (kernel.shape[1],), *_range_of_products(kernel, 0, sources[0])


def _flatten(name, facts, sources, constants):
    return (math.prod(sources[0].shape),), sources[0].least, sources[0].largest


def _add(name, facts, sources, constants):
    factors = facts.get("factors", [1] * len(sources))
    return sources[0].shape, 0, sum(r * source.largest for r, source in zip(factors, sources, strict=True))


def _pool(facts, source):
    return (*places_of(source.shape, facts["size"], facts), source.shape[2])


def _sum_pool(name, facts, sources, constants):
    least_common = int(np.lcm.reduce(counts_of(sources[0].shape, facts).ravel()))
    return _pool(facts, sources[0]), 0, sources[0].largest * least_common


def _global_sum(name, facts, sources, constants):
    height, width, channels = sources[0].shape
    return (channels,), 0, sources[0].largest * height * width


def _max_pool(name, facts, sources, constants):
    return _pool(facts, sources[0]), sources[0].least, sources[0].largest


def _neurons(name, facts, sources, constants):
    for source in () if "shift" in facts else sources:
        shifted = max(-source.least, source.largest) * 2.0 ** max(facts["f"], 0) + 2.0 ** max(-facts["f"] - 1, 0)
        if shifted + np.abs(constants[f"bias/{name}"].astype("int64")).max() >= 2**31:
            raise ValueError(
                f"A current must fit in 32 bits after its shift. Received: layer {name!r} with f={facts['f']}, currents from "
                f"{source.least} to {source.largest}. Give it fewer inputs or smaller weights."
            )
    return sources[0].shape, 0, max(1, facts["levels"])


def _readout(name, facts, sources, constants):
    bias, factor = constants[f"bias/{name}"], 2 ** facts["f"]
    (source,) = sources
    return source.shape, source.least * factor + int(bias.min()), source.largest * factor + int(bias.max())


_CONSTANTS = {
    **dict.fromkeys(("conv", "depthwise", "dense"), ("w",)),
    "neurons": ("theta", "bias", "v0"),
    "readout": ("bias",),
}
"""The arrays that a layer of each kind needs."""

_NUMBERS = {
    **dict.fromkeys(("conv", "depthwise"), ("stride", "pad")),
    **dict.fromkeys(("sum_pool", "max_pool"), ("size", "stride", "pad")),
    "neurons": ("decay_m", "decay_k", "membrane_bits", "levels", "hard", "v_reset"),
}
"""The numbers that a layer of each kind needs."""

_OUTPUTS = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": _dense,
    "flatten": _flatten,
    "add": _add,
    "sum_pool": _sum_pool,
    "global_sum": _global_sum,
    "max_pool": _max_pool,
    "neurons": _neurons,
    "readout": _readout,
}
"""The shape and the range of the output of each kind of layer."""

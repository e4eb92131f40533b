"""Compiles a spiking model to a network of integers: collects layers and constants of
its lowered nodes."""

import collections
from typing import Any

import numpy as np

from keras_ratesnn import _graph, _lowered
from keras_ratesnn._core import names, quantized_kernels
from keras_ratesnn.conversion.positions import positions
from keras_ratesnn.integers import _rules
from keras_ratesnn.integers._network import IntegerNetwork, make_network
from keras_ratesnn.integers._refusals import REFUSALS, refused
from keras_ratesnn.integers._report import IntegerReport, LayerReport
from keras_ratesnn.integers._schema import INPUT, plain
from keras_ratesnn.integers._signals import Current, Term, Units
from keras_ratesnn.layers.quantized import QuantizedKernels

_MOST_SHIFT_OF_LOGITS = 8


def compile_model(
    model: Any, weights: str | None, membrane_bits: int, largest_input: int
) -> tuple[IntegerNetwork, IntegerReport]:
    """The network of integers of a `SpikingModel`, and the report about it."""
    if model.mask_value is not None:
        raise ValueError(
            "`model` must see all steps: a network of integers has no mask. Received: "
            f"mask_value={model.mask_value}. Set model.mask_value = None, and pass "
            "sequences without padding."
        )
    graph = _graph.as_graph(model.network)
    if _graph.substeps_of(graph) > 1:
        raise ValueError(
            "`model` must not be unrolled: integer spikes need no substeps. Received: "
            "a model of `unroll`. Pass the model from which it was made."
        )
    lowered = _lowered.lower(graph, REFUSALS)
    shape = lowered.nodes[0].shape
    if len(shape) not in (1, 3):
        raise ValueError(
            "`model` must have images or vectors of known size as inputs. Received: an "
            f"input of shape {tuple(graph.inputs[0].shape)}. Build the network for "
            "inputs of one size."
        )
    compiler = Compiler(positions(graph), model.timesteps, weights, membrane_bits)
    unit = compiler.run(lowered, largest_input)
    network = make_network(
        compiler.layers,
        compiler.constants,
        shape,
        timesteps=model.timesteps,
        temporal_input=False,
        largest_input=largest_input,
        channels_first=lowered.channels_first and len(shape) == 3,
        unit=float(unit),
    )
    return network, IntegerReport(tuple(compiler.rows), model.timesteps, membrane_bits)


class Compiler:
    """Collects the layers and constants of the nodes of a network."""

    def __init__(self, positions, timesteps, weights, membrane_bits):
        self.positions, self.timesteps = positions, timesteps
        self.weights, self.bits = weights, membrane_bits
        self.layers: list[dict] = []
        self.constants: dict[str, np.ndarray] = {}
        self.rows: list[LayerReport] = []
        self.signals: dict[Any, Units | Current] = {}

    def run(self, lowered, largest_input):
        """Compiles all nodes, and returns the unit of a logit."""
        begin, *nodes = lowered.nodes
        self.signals[begin] = Units(INPUT, largest_input, 1.0)
        uses = collections.Counter([lowered.output.node])
        for node in nodes:
            uses.update(wire.node for wire in set(node.inputs))
        for node in nodes:
            signal = _rules.compile_node(self, node)
            if isinstance(signal, Current) and uses[node] != 1:
                signal = signal.shared()
            self.signals[node] = signal
        return self.logits(lowered.output)

    def signal_of(self, wire):
        """The signal of a wire: `Units` or `Current`."""
        signal = self.signals[wire.node]
        if wire.is_plain:
            return signal
        if isinstance(signal, Units) and (wire.by_channel or wire.scale <= 0):
            raise refused(
                wire.by,
                "factors that differ, or are not above 0, have to follow weights, "
                "whose units they change. Put a BatchNormalization directly after a "
                "convolution or Dense layer, and use one scale > 0 in a Rescaling.",
            )
        return signal.scaled(wire.scale, wire.offset)

    def add(self, layer, kind, sources, suffix="", **facts):
        """Adds a layer of integers and returns its name, that of a Keras layer with a
        number if it is called again."""
        taken = {INPUT, *(made["name"] for made in self.layers)}
        name = names.free(plain(layer.name + suffix), taken)
        self.layers.append({"name": name, "kind": kind, "from": list(sources), **facts})
        return name

    def weight_type(self, layer):
        """The type of the weights of a layer, and whether they were trained so."""
        trained = getattr(layer, "weight_type", None)
        if self.weights is None:
            return trained or "int8", trained is not None
        position = self.positions[layer]
        return "int8" if position.is_first or position.is_last else self.weights, False

    def products(self, node, signal, kind, expand=None, **facts):
        """The current of a node with weights; `expand` makes the kernel of the layer of
        integers."""
        layer, axis = node.layer, tuple(range(node.kernel.ndim - 1))
        weights, trained = self.weight_type(layer)
        # A layer that was trained with a quantised kernel says whether it has one
        # scale: it keeps the integers of its training, also where it is shared.
        last = (
            not layer.per_channel
            if isinstance(layer, QuantizedKernels)
            else self.positions[layer].reaches_output
        )
        integers, scale = integer_weights(
            node.kernel,
            weights,
            None if last else axis,
            weights == "int4" and not trained,
        )
        scales = np.broadcast_to(scale.reshape(-1), node.channels).astype("float64")
        sizes = np.abs(integers).sum(axis=axis, dtype="int64")
        sums = integers.sum(axis=axis, dtype="int64") * scales
        name = self.add(layer, kind, [signal.name], **facts)
        kernel = integers if expand is None else expand(integers)
        self.constants[f"w/{name}"] = kernel.astype("int8")
        self.rows.append(LayerReport(name, kind, weights=weights))
        bias = np.zeros(node.channels) if node.bias is None else node.bias
        term = Term(name, signal.unit * scales, sizes * signal.top, name)
        return Current((term,), bias + signal.offset * sums, signal.averaged)

    def logits(self, wire):
        """Ends the network, and returns the unit of a logit."""
        end, last = self.signal_of(wire), wire.by or wire.node.layer
        if len(wire.shape) != 1:
            raise refused(
                last,
                f"the output has the shape {wire.shape}, and not one number for each "
                "class. Flatten or pool it.",
            )
        if wire.order is not None:
            raise refused(
                last,
                "the classes would be in another order than with channels last. Use "
                "keras.layers.Flatten for them.",
            )
        if isinstance(end, Units):
            if end.offset:
                raise refused(
                    last,
                    "the output has an offset. Leave the offset of the Rescaling out.",
                )
            return end.unit
        term = end.terms[0]
        units = np.abs(term.unit)
        is_same = np.allclose(units, units[0], rtol=1e-12, atol=0.0)
        if len(end.terms) > 1 or not is_same:
            raise refused(
                last,
                "classes are compared, so the output must be that of one layer with "
                "weights and no normalisation after it. Put neurons before it, or "
                "leave the normalisation out.",
            )
        self.change_signs(term, np.sign(term.unit))
        for f in range(_MOST_SHIFT_OF_LOGITS, -1, -1):
            unit = units[0] / 2**f
            bias = np.rint(end.bias / unit)
            if self.timesteps * (2**f * term.bound + np.abs(bias)).max() < 2**31:
                break
        else:
            raise refused(
                last,
                "its sums over all time steps do not fit in 32 bits. Use fewer inputs "
                "or time steps.",
            )
        name = self.add(last, "readout", [term.name], suffix="_sum", f=f)
        self.constants[f"bias/{name}"] = bias.astype("int32")
        self.rows.append(LayerReport(name, "readout", f=f))
        return unit

    def change_signs(self, term, factors):
        """Multiplies the kernel of a current by a factor −1, 0 or 1 for each channel,
        and returns whether that was possible."""
        if (factors == 1).all():
            return True
        if term.kernel is None:
            return False
        kernel = self.constants[f"w/{term.kernel}"]
        kinds = {layer["name"]: layer["kind"] for layer in self.layers}
        is_depthwise = kinds[term.kernel] == "depthwise"
        signs = factors.reshape(kernel.shape[2:] if is_depthwise else -1)
        self.constants[f"w/{term.kernel}"] = (kernel * signs).astype("int8")
        return True


def integer_weights(
    kernel: np.ndarray,
    weights: str,
    axis: tuple[int, ...] | None,
    least_error: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The integers W = clip(round(w / s), −Q, Q) of a kernel, halves to even, and the
    scales s.

    They are those of `keras_ratesnn._core.quantized_kernels`, in float32 as in
    training, which gives the same integers.

    Args:
        kernel: Array.
        weights: `"int8"`, `"int4"` or `"ternary"`.
        axis: Tuple of the axes that share a scale: all but those of the output
            channels. `None`: one scale for all.
        least_error: Boolean, whether the scale of int8 and int4 is that with the least
            squared error, of a number of scales up to max |w| / Q. It is better for
            kernels that were not trained to be quantised. Defaults to `False`.

    Returns:
        `(W, s)`: int32 integers of the shape of the kernel, and float32 scales, which
        broadcast to it.
    """
    kernel = np.asarray(kernel, "float32")
    axis = tuple(range(kernel.ndim)) if axis is None else axis
    integers, scale = quantized_kernels.integers_and_scale(kernel, weights, axis, np)
    if least_error and weights != "ternary":
        largest = quantized_kernels.LARGEST[weights]
        scale = _scale_of_least_error(kernel, scale, largest, axis)
        integers = quantized_kernels.rounded(kernel, scale, largest, np)
    return integers.astype("int32"), scale


def _scale_of_least_error(kernel, scale, largest, axis):
    best, least = scale, np.full(scale.shape, np.inf)
    for fraction in np.linspace(1.0, 0.4, 61, dtype="float32"):
        tried = scale * fraction
        error = np.square(
            kernel - tried * quantized_kernels.rounded(kernel, tried, largest, np)
        )
        error = error.sum(axis, dtype="float64", keepdims=True)
        best, least = np.where(error < least, tried, best), np.minimum(error, least)
    return best

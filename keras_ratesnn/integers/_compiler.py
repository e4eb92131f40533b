"""Compiles a spiking model to a network of integers: walks through it and collects
layers and constants."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals, names, quantized_kernels
from keras_ratesnn.conversion.places import places
from keras_ratesnn.integers._network import IntegerNetwork, make_network
from keras_ratesnn.integers._refusals import refused
from keras_ratesnn.integers._report import LayerReport, Report
from keras_ratesnn.integers._rules import rule_of
from keras_ratesnn.integers._schema import INPUT, plain
from keras_ratesnn.integers._signals import NO_PADDING, Current, Term, Units, moved
from keras_ratesnn.layers.quantized import QuantizedKernels

_MOST_SHIFT_OF_LOGITS = 8


def compile_model(
    model: Any, weights: str | None, membrane_bits: int, largest_input: int
) -> tuple[IntegerNetwork, Report]:
    """The network of integers of a `SpikingModel`, and what was done."""
    network = _graph.as_graph(model.network)
    if (
        len(network.inputs) != 1
        or len(keras.tree.flatten(keras_internals.outputs_structure(network))) != 1
    ):
        raise ValueError(
            "`model` must have one input and one output. Received: "
            f"{len(network.inputs)} inputs and {len(network.outputs)} outputs. Make a "
            "model of each path."
        )
    if model.mask_value is not None:
        raise ValueError(
            "`model` must see all steps: a network of integers has no mask. Received: "
            f"mask_value={model.mask_value}. Set model.mask_value = None, and pass "
            "sequences without padding."
        )
    if _graph.slots_of(network) > 1:
        raise ValueError(
            "`model` must not be unrolled: integer spikes need no slots. Received: a "
            "model of `unroll`. Pass the model from which it was made."
        )
    return _Compiler(
        network, model.timesteps, weights, membrane_bits, largest_input
    ).run()


class _Compiler:
    """Walks through a network and collects layers and constants."""

    def __init__(self, network, timesteps, weights, membrane_bits, largest_input):
        self.network, self.timesteps, self.weights, self.bits = (
            network,
            timesteps,
            weights,
            membrane_bits,
        )
        self.largest_input = largest_input
        self.calls, self.places = _graph.whole_of(network).calls, places(network)
        self.channels_first = _channels_first(self.calls)
        self.layers: list[dict] = []
        self.constants: dict[str, np.ndarray] = {}
        self.rows: list[LayerReport] = []

    def run(self):
        (reference,) = self.network.inputs
        shape = self.canonical(reference.shape[1:])
        if None in shape or len(shape) not in (1, 3):
            raise ValueError(
                "`model` must have images or vectors of known size as inputs. "
                f"Received: an input of shape {tuple(reference.shape)}. Build the "
                "network for inputs of one size."
            )
        begin = Units(INPUT, shape, self.largest_input, 1.0)
        found = _graph.whole_of(self.network).run(
            [begin],
            self.compile,
            training=False,
        )
        (end,) = keras.tree.flatten(found)
        unit = self.logits(end)
        network = make_network(
            self.layers,
            self.constants,
            shape,
            timesteps=self.timesteps,
            temporal_input=False,
            largest_input=self.largest_input,
            channels_first=self.channels_first and len(shape) == 3,
            unit=float(unit),
        )
        return network, Report(tuple(self.rows), self.timesteps, self.bits)

    def canonical(self, shape):
        """A shape with channels last."""
        return (
            (*shape[1:], shape[0])
            if self.channels_first and len(shape) == 3
            else tuple(shape)
        )

    def of_keras(self, shape):
        """The inverse of `canonical`."""
        return (
            (shape[-1], *shape[:-1])
            if self.channels_first and len(shape) == 3
            else tuple(shape)
        )

    def channels_of(self, layer, signal, axis, values):
        """An array of the axis of channels of a layer's input, in our order."""
        rank = len(signal.shape) + 1
        wanted = 1 if self.channels_first and rank == 4 else rank - 1
        if axis % rank != wanted:
            raise refused(
                layer,
                f"its axis {axis} is not that of the channels. Create it for these.",
            )
        return values if signal.order is None else moved(values, signal.order)

    def add(self, layer, kind, sources, suffix="", **facts):
        """Adds a layer of integers and returns its name, that of a Keras layer with a
        number if it is called again."""
        name = names.free(
            plain(layer.name + suffix), {INPUT, *(made["name"] for made in self.layers)}
        )
        self.layers.append({"name": name, "kind": kind, "from": list(sources), **facts})
        return name

    def compile(self, call):
        layer, signals = call.operation, call.inputs
        made = rule_of(layer)(self, layer, signals)
        return (
            made.shared()
            if isinstance(made, Current) and len(call.consumers) != 1
            else made
        )

    def weight_type(self, layer):
        """The type of the weights of a layer, and whether they were trained so."""
        trained = getattr(layer, "weight_type", None)
        if self.weights is None:
            return trained or "int8", trained is not None
        place = self.places[layer]
        return "int8" if place.is_first or place.is_last else self.weights, False

    def products(self, layer, signal, kernel, axis, kind, shape, expand=None, **facts):
        """The current of a layer with weights; `axis` are the axes that share a
        scale."""
        weights, trained = self.weight_type(layer)
        # One that was trained so says it: its integers are those of its training also
        # where it is shared.
        last = (
            not layer.per_channel
            if isinstance(layer, QuantizedKernels)
            else self.places[layer].reaches_output
        )
        integers, scale = integer_weights(
            kernel, weights, None if last else axis, weights == "int4" and not trained
        )
        of_outputs = np.broadcast_to(
            scale,
            (
                *(
                    1 if place in axis else size
                    for place, size in enumerate(kernel.shape)
                ),
            ),
        )
        of_outputs = of_outputs.reshape(-1).astype("float64")
        sizes = np.abs(integers).sum(axis=axis, dtype="int64").reshape(-1)
        sums = integers.sum(axis=axis, dtype="int64").reshape(-1) * of_outputs
        name = self.add(layer, kind, [signal.name], **facts)
        self.constants[f"w/{name}"] = (
            integers if expand is None else expand(integers)
        ).astype("int8")
        self.rows.append(LayerReport(name, kind, weights=weights))
        bias = np.zeros(len(of_outputs)) if not layer.use_bias else _array(layer.bias)
        term = Term(name, signal.unit * of_outputs, sizes * signal.top, name)
        return Current(
            (term,), shape, bias + signal.offset * sums, None, signal.averaged
        )

    def logits(self, end):
        """Ends the network, and returns the unit of a logit."""
        last = self.calls[-1].operation
        if len(end.shape) != 1:
            raise refused(
                last,
                f"the output has the shape {end.shape}, and not one number for each "
                "class. Flatten or pool it.",
            )
        if end.order is not None:
            raise refused(
                last,
                "the classes would be in another order than with channels last. Use "
                "keras.layers.Flatten for them.",
            )
        if isinstance(end, Units):
            if end.offset or end.padding != NO_PADDING:
                raise refused(
                    last,
                    "the output has an offset. Leave the offset of the Rescaling out.",
                )
            if end.name == INPUT:
                raise refused(last, "the output is the input.")
            return end.unit
        units, (term, *others) = np.abs(end.terms[0].unit), end.terms
        if others or not np.allclose(units, units[0], rtol=1e-12, atol=0.0):
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
        """Multiplies the kernel of a current by a factor −1, 0 or 1 for each channel;
        whether it was possible."""
        if (factors == 1).all():
            return True
        if term.kernel is None:
            return False
        kernel = self.constants[f"w/{term.kernel}"]
        depthwise = (
            next(made for made in self.layers if made["name"] == term.kernel)["kind"]
            == "depthwise"
        )
        by = factors.reshape(kernel.shape[2:] if depthwise else -1)
        self.constants[f"w/{term.kernel}"] = (kernel * by).astype("int8")
        return True


def _channels_first(calls):
    """Whether images have channels first; raises an error if layers disagree."""
    found: dict[str, Any] = {}
    for call in calls:
        if type(call.operation) is not layers.Flatten and getattr(
            call.operation, "data_format", None
        ):
            found.setdefault(call.operation.data_format, call.operation)
    if len(found) > 1:
        raise refused(
            list(found.values())[1],
            "its data_format is not that of layers before it. Use one for all.",
        )
    return next(iter(found), keras.config.image_data_format()) == "channels_first"


def _array(variable):
    return np.asarray(ops.convert_to_numpy(ops.cast(variable, "float32")), "float64")


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
        scale = _of_least_error(kernel, scale, largest, axis)
        integers = quantized_kernels.rounded(kernel, scale, largest, np)
    return integers.astype("int32"), scale


def _of_least_error(kernel, scale, largest, axis):
    best, least = scale, np.full(scale.shape, np.inf)
    for fraction in np.linspace(1.0, 0.4, 61, dtype="float32"):
        tried = scale * fraction
        error = np.square(
            kernel - tried * quantized_kernels.rounded(kernel, tried, largest, np)
        )
        error = error.sum(axis, dtype="float64", keepdims=True)
        best, least = np.where(error < least, tried, best), np.minimum(error, least)
    return best

"""Lowers a network: one rule for each class of layers, from the wire of its input to
that of its output."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals
from keras_ratesnn._lowered import affine, neurons, shapes
from keras_ratesnn._lowered.nodes import InputNode, LoweredNode, Wire
from keras_ratesnn._lowered.refusals import Refusals
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers.quantized import QuantizedKernels

_RULES: dict[type, Any] = {**affine.RULES, **shapes.RULES, **neurons.RULES}
"""Functions `(lowering, layer, wire) -> wire` by classes of layers."""

_WITH_ZEROS = affine.convolution, affine.rescaling, shapes.zero_padding, shapes.identity
"""The rules that take zeros around an image."""


@dataclasses.dataclass(frozen=True, eq=False)
class Lowered:
    """A lowered network.

    Args:
        nodes: Tuple of `LoweredNode` in the order in which they run; the first is the
            `InputNode`.
        output: `Wire`.
        channels_first: Boolean, whether Keras has the channels of images first.
        has_space: Boolean, whether a layer has a `data_format`; else signals of three
            axes are images, and others may be anything.
    """

    nodes: tuple[LoweredNode, ...]
    output: Wire
    channels_first: bool
    has_space: bool

    def is_image(self, shape):
        """Whether signals of this shape have channels, by which layouts differ."""
        return _is_image(shape, self.has_space)


def _is_image(shape, has_space):
    return len(shape) == 3 or (has_space and len(shape) > 1)


class Lowering:
    """A network while it is lowered."""

    def __init__(self, calls, refusals):
        self.refusals = refusals
        self.refused = refusals.error
        self.nodes: list[LoweredNode] = []
        by_format: dict[str, Any] = {}
        for call in calls:
            layer = call.operation
            data_format = getattr(layer, "data_format", None)
            if data_format and type(layer) is not layers.Flatten:
                by_format.setdefault(data_format, layer)
        if len(by_format) > 1:
            raise self.refused(
                list(by_format.values())[1],
                "its data_format is not that of layers before it. Use one for all.",
            )
        data_format = next(iter(by_format), keras.config.image_data_format())
        self.channels_first = data_format == "channels_first"
        self.has_space = bool(by_format)

    def moves(self, shape):
        """Whether Keras has the channels of a signal of this shape first."""
        return self.channels_first and _is_image(shape, self.has_space)

    def in_keras(self, shape):
        """Our shape as Keras has it."""
        return (shape[-1], *shape[:-1]) if self.moves(shape) else shape

    def values(self, parameter, wire):
        """A parameter of neurons as a node has it: a float, or an array of the shape of
        the node."""
        values = np.asarray(ops.convert_to_numpy(parameter), "float64")
        if not values.ndim:
            return float(values)
        # Its first axis is that of the batch.
        values = np.broadcast_to(values[0], self.in_keras(wire.shape))
        if self.moves(wire.shape):
            values = np.moveaxis(values, 0, -1)
        return affine.in_our_order(values, wire)

    def add(self, node, order=None):
        """Adds a node, and returns its wire."""
        self.nodes.append(node)
        return Wire(node, order=order)

    def run(self, layer, wires):
        """Lowers a call of a layer, and returns the wire of its output."""
        self.refusals.check(layer)
        name = keras_internals.name_of_node(type(layer))
        if type(layer) is layers.Add or name == "Add":
            return shapes.add(self, layer, wires)
        kind = layer.base if isinstance(layer, QuantizedKernels) else type(layer)
        rule = _RULES.get(kind)
        if rule is None and kind_of(layer).normalization is None:
            raise self.refusals.without_rule(layer)
        if len(wires) != 1:
            raise self.refused(
                layer, "it takes several inputs, or a mask. Use a layer of one input."
            )
        if wires[0].padding and rule not in _WITH_ZEROS:
            raise self.refused(
                layer,
                f"zeros around the input of layer {layer.name!r} have to be those of a "
                "convolution. Put ZeroPadding directly before a convolution.",
            )
        return (rule or affine.normalization)(self, layer, wires[0])


def lower(network: keras.Model, refusals: Refusals) -> Lowered:
    """Lowers a network of one input and one output.

    Raises:
        ValueError: If a layer cannot be lowered; the message names it.
    """
    network = _graph.as_graph(network, argument="model")
    outputs = keras.tree.flatten(keras_internals.outputs_structure(network))
    if len(network.inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "`model` must have one input and one output. Received: "
            f"{len(network.inputs)} inputs and {len(outputs)} outputs. Make a model of "
            "each path."
        )
    _, *shape = network.inputs[0].shape
    if None in shape or not shape:
        raise ValueError(
            "`model` must know the shape of its input. Received: an input of shape "
            f"{network.inputs[0].shape}. Build it for inputs of one size."
        )
    part = _graph.whole_of(network)
    lowering = Lowering(part.calls, refusals)
    if lowering.moves(shape):
        shape = [*shape[1:], shape[0]]
    begin = lowering.add(InputNode(None, (), tuple(shape)))
    wires = {part.inputs[0].index: begin}
    for call in part.calls:
        inputs = [wires[index] for index in call.inputs]
        wires[call.outputs[0].index] = lowering.run(call.operation, inputs)
    (output,) = keras.tree.flatten(part.outputs)
    end = wires[output.index]
    if end.padding:
        raise refusals.error(
            part.calls[-1].operation,
            "there are zeros around the output. Leave them out.",
        )
    return Lowered(
        tuple(lowering.nodes), end, lowering.channels_first, lowering.has_space
    )

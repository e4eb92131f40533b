"""Finds the batch normalisations of a network, and the layers into which they can be folded."""

import dataclasses

import keras

from keras_ratesnn._core import keras_internals
from keras_ratesnn.conversion._nodes import nodes_of
from keras_ratesnn.layer_kinds import kind_of

INSIDE = "inside a layer"


@dataclasses.dataclass(frozen=True)
class Pair:
    """A batch normalisation, and the layer before it.

    Args:
        name: String, the name of the normalisation, with that of the layer that it is inside of.
        normalization: The layer.
        before: The layer into which it can be folded; `None` if there is none.
        reason: String, why there is none; empty otherwise.
    """

    name: str
    normalization: keras.layers.Layer
    before: keras.layers.Layer | None = None
    reason: str = ""


def find_pairs(network):
    """All batch normalisations of a network and its nested models, in execution order.

    One can be folded if in inference it is a scale and a shift of each channel, and it follows a layer whose weights can take
    both, in all calls of the two and with nothing in between or beside it.

    Args:
        network: A Functional model, see `keras_ratesnn._graph.as_graph`.

    Returns:
        List of `Pair`.
    """
    calls: dict[keras.Operation, list] = {}
    for node in nodes_of(network):
        calls.setdefault(node.operation, []).append(node)
    pairs = []
    for operation, nodes in calls.items():
        if _normalizes(operation):
            reason = _why_not(operation, nodes, calls)
            pairs.append(Pair(operation.name, operation, None if reason else nodes[0].inputs[0].operation, reason))
        elif isinstance(operation, keras.layers.Layer):
            inside = filter(_normalizes, keras_internals.with_sublayers(operation))
            pairs += [Pair(f"{operation.name}/{layer.name}", layer, reason=INSIDE) for layer in inside]
    return pairs


def _normalizes(operation):
    return kind_of(operation).normalization is not None or isinstance(operation, keras.layers.BatchNormalization)


def _why_not(layer, nodes, calls):
    """Why a normalisation cannot be folded; an empty string if it can.

    Args:
        layer: The normalisation.
        nodes: List of its calls.
        calls: Dict of all operations of the network to their calls.
    """
    normalization = kind_of(layer).normalization
    if normalization is not None and normalization.step_factors is not None:
        return "a factor for each time step"
    if normalization is None or normalization.scale_and_shift is None:
        return "another computation"
    if any(len(node.inputs) > 1 for node in nodes):
        return "takes a mask"
    sources = {node.inputs[0].operation for node in nodes}
    if len(sources) > 1:
        return "after several layers"
    (before,) = sources
    if before is None:
        return "after an input"
    if kind_of(before).output_factors is None or "use_bias" not in before.get_config():
        return f"after {type(before).__name__}"
    if getattr(before, "activation", None) not in (None, keras.activations.linear):
        return "after an activation"
    if any(len(node.consumers) > 1 or node.consumers[0] not in nodes for node in calls[before]):
        return "the layer before also feeds others"
    if before.compute_dtype != layer.compute_dtype:
        return "another precision than the layer before"
    if getattr(before, "lora_enabled", False) or getattr(before, "quantization_mode", None):
        return "after a layer with LoRA or quantized weights"
    rank = len(before.output.shape)
    channels = 1 if getattr(before, "data_format", None) == "channels_first" else rank - 1
    return "" if layer.axis % rank == channels else "another axis than the channels of the layer before"

"""The positions in a network of layers with weights, which decide the types of
quantised weights and the number of scales."""

import keras

from keras_ratesnn import _graph
from keras_ratesnn.layer_kinds import NEURON, OPERATION, kind_of
from keras_ratesnn.layers.quantized import QUANTIZED, QuantizedKernels


def quantized_class(layer):
    """The class of the quantised copy of a layer; `None` if there is none."""
    return (
        type(layer)
        if isinstance(layer, QuantizedKernels)
        else QUANTIZED.get(type(layer))
    )


class Position:
    """The position of a layer with weights in a network.

    Attributes:
        is_first: Boolean, whether no other weights are before it, in one of its calls.
        is_last: Boolean, likewise after it.
        reaches_output: Boolean, whether there are neither other weights nor neurons
            between it and an output.
    """

    is_first = is_last = reaches_output = False


def positions(network):
    """The `Position` of each layer with weights of a network and its nested models, a
    dict."""
    positions_by_layer: dict[keras.Operation, Position] = {}
    calls = _graph.whole_of(network).calls
    after, before, to_output = set(), set(), {None}
    for call in calls:
        if any(
            source in after or has_matrix(source.operation) for source in call.sources
        ):
            after.add(call)
    for call in reversed(calls):
        followers = set(call.consumers) - {None}
        if any(
            follower in before or has_matrix(follower.operation)
            for follower in followers
        ):
            before.add(call)
        is_open = {
            follower
            for follower in followers
            if not has_matrix(follower.operation) and not _is_neuron(follower)
        }
        if None in call.consumers or is_open & to_output:
            to_output.add(call)
    for call in calls:
        if has_matrix(call.operation):
            position = positions_by_layer.setdefault(call.operation, Position())
            position.is_first |= call not in after
            position.is_last |= call not in before
            position.reaches_output |= call in to_output
    return positions_by_layer


def _is_neuron(call):
    return kind_of(call.operation).role == NEURON


def has_matrix(operation):
    """Whether an operation is a layer, but none of neurons or of time, that can be
    quantised, or has a weight that is more than a vector."""
    if (
        not isinstance(operation, keras.layers.Layer)
        or kind_of(operation).role != OPERATION
    ):
        return False
    sizes_above_1 = (
        sum(size > 1 for size in weight.shape) for weight in operation.weights
    )
    return quantized_class(operation) is not None or any(
        axes > 1 for axes in sizes_above_1
    )

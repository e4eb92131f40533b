"""Nodes of your own in a network: in place of neurons, or after them."""

import itertools
from collections.abc import Callable

from keras_ratesnn._graph import PlannedCall
from keras_ratesnn.gradients.handlers import NeuronHandler
from keras_ratesnn.gradients.handlers.with_membranes import WithMembranes
from keras_ratesnn.gradients.network import HandlerOf, Node, NodesOf, plain_nodes


def with_neurons(handler_of: HandlerOf) -> NodesOf:
    """The plain nodes, with a handler of your own for each neuron layer.

    Args:
        handler_of: Function `(call, context)` that returns a `Handler`, for example a
            class of handlers.
    """

    def nodes(calls, context):
        for node in plain_nodes(calls, context):
            if isinstance(node.handler, NeuronHandler):
                node = node._replace(handler=handler_of(node.handler.call, context))
            yield node

    return nodes


def membrane_slot(call: PlannedCall) -> int:
    """The slot of the membranes of neurons, by `with_membranes`."""
    return -1 - call.outputs[0].index


def with_membranes(is_wanted: Callable[[PlannedCall], bool]) -> NodesOf:
    """The plain nodes, of which neurons also give their membranes.

    Args:
        is_wanted: Function that tells which calls of neurons do.
    """

    def nodes(calls, context):
        for node in plain_nodes(calls, context):
            call = node.handler.call
            if isinstance(node.handler, NeuronHandler) and is_wanted(call):
                outputs = [*node.outputs, membrane_slot(call)]
                yield node._replace(
                    handler=WithMembranes(call, context), outputs=outputs
                )
            else:
                yield node

    return nodes


def after_neurons(handler_of: HandlerOf) -> NodesOf:
    """The plain nodes, with one more after each neuron layer.

    It stands between the layer and what reads its spikes. Its inputs are the spikes and
    the input current of the neurons; its output takes the place of the spikes.

    Args:
        handler_of: Function `(call, context)` of the call of the neurons that returns
            the `Handler` of the new node, for example a class of handlers.
    """

    def nodes(calls, context):
        slots = itertools.count(-1, -1)
        for node in plain_nodes(calls, context):
            if not isinstance(node.handler, NeuronHandler):
                yield node
                continue
            spikes = next(slots)
            yield node._replace(outputs=[spikes])
            handler = handler_of(node.handler.call, context)
            yield Node(handler, [spikes, *node.inputs], node.outputs)

    return nodes

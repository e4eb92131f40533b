"""The calls of a network as nodes that know what feeds them and what they feed."""

import keras

from keras_ratesnn._graph.walk import walk


class Node:
    """One call of an operation, or an input of the network if there is no operation.

    Args:
        operation: A Keras operation, or `None`.
        inputs: Iterable of the nodes whose outputs it takes, each once.

    Attributes:
        consumers: List of the nodes that take its output; an output of the network is
            `None` among them.
    """

    def __init__(self, operation=None, inputs=()):
        self.operation = operation
        self.inputs = list(inputs)
        self.consumers = []
        for node in self.inputs:
            node.consumers.append(self)


def nodes_of(network, inside=None):
    """The calls of a network and its nested models: a list of `Node` in execution
    order.

    Args:
        network: A Functional model, see `keras_ratesnn._graph.as_graph`.
        inside: As in `keras_ratesnn._graph.walk`. Defaults to `None`.
    """
    nodes = []

    def trace(call):
        node = Node(call.operation, dict.fromkeys(call.signals))
        nodes.append(node)
        return keras.tree.map_structure(lambda _: node, call.operation.output)

    outputs = walk(
        network, [Node() for _ in network.inputs], trace, training=False, inside=inside
    )
    for node in keras.tree.flatten(outputs):
        node.consumers.append(None)
    return nodes

"""The graphs of Functional and Sequential models: their calls, inputs and outputs."""

import keras

from keras_ratesnn._core.keras_internals.imported import functional

_GRAPH_CALLS = (functional.Functional.call, keras.Sequential.call)


def is_graph(operation):
    """Whether an operation is a model whose `call` only runs its graph."""
    return (
        isinstance(operation, keras.Model)
        and getattr(type(operation), "call", None) in _GRAPH_CALLS
    )


def is_graph_with_other_call(model):
    """Whether a model has a graph, and a `call` that does something else."""
    return not is_graph(model) and bool(
        getattr(model, "_nodes", ()) or getattr(model, "_functional", None)
    )


def functional_of(network):
    """The Functional model inside a Sequential (`None` if it is not built); a
    Functional model itself."""
    return network._functional if isinstance(network, keras.Sequential) else network


def run_through_graph(network, signals, operation_function):
    """Runs a Functional model's graph on arbitrary objects,
    `operation_function(operation)(*args, **kwargs)` at each node."""
    return unpack_single(
        network._run_through_graph(signals, operation_fn=operation_function)
    )


def calls_in(graph):
    """The calls of a Functional model in order: a list of `(operation, args, kwargs,
    outputs)`, the outputs as a flat list."""
    depths = sorted(graph._nodes_by_depth, reverse=True)
    nodes = [
        node
        for depth in depths
        for node in graph._nodes_by_depth[depth]
        if not node.is_input
    ]
    return [
        (node.operation, node.arguments.args, node.arguments.kwargs, node.outputs)
        for node in nodes
    ]


def forget_training(graph):
    """Makes the calls in a Functional model, but not in its nested ones, as if they had
    been made without `training`."""
    for _, _, kwargs, _ in calls_in(graph):
        kwargs.pop("training", None)


def inputs_structure(network):
    """The symbolic inputs of a Functional model, in their original structure."""
    return network._inputs_struct


def outputs_structure(network):
    """The symbolic outputs of a Functional model, in the structure that calling it
    returns."""
    return unpack_single(network._outputs_struct)


def name_of_input(tensor):
    """The name of the layer of a symbolic input, as `summary` shows it; an input
    without a name has a number as its own."""
    return tensor._keras_history.operation.name


def unpack_single(outputs):
    """Unpacks a list of one output, like `Functional.call`."""
    return (
        outputs[0]
        if isinstance(outputs, (list, tuple)) and len(outputs) == 1
        else outputs
    )


def name_of_node(operation_class):
    """The name of a class of nodes that functions of `keras.ops` and
    `keras.activations` make in graphs, or `None`.

    Keras says nowhere which function has made a node: these classes, which are private,
    are named like them.
    """
    is_node = operation_class.__module__.startswith("keras.") and not issubclass(
        operation_class, keras.layers.Layer
    )
    return operation_class.__name__ if is_node else None

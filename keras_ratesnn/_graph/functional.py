"""The Functional graph of a model, and the outputs in it."""

import keras

from keras_ratesnn._core import checks, keras_internals


def as_graph(network, argument="network"):
    """The Functional graph of a Functional or Sequential model.

    Args:
        network: The argument of the user.
        argument: String, the name of the argument. Defaults to `"network"`.

    Returns:
        A Functional model: `network` itself, or the one inside a Sequential model.

    Raises:
        TypeError: If `network` is neither Functional nor Sequential.
        ValueError: If it is a Sequential without an input shape.
    """
    if not keras_internals.is_graph(network):
        wanted = (
            "a Functional or Sequential Keras model of one time step, whose graph "
            "can be walked"
        )
        advice = (
            "Build it as keras.Model(inputs, outputs) from keras.Input, or as "
            "keras.Sequential([keras.Input(shape), ...])."
        )
        raise checks.wrong_type(argument, wanted, network, advice)
    functional = keras_internals.functional_of(network)
    if functional is None:
        raise ValueError(
            f"`{argument}` must know its input shape. Received: "
            f"{argument}={network!r}, a Sequential that is not built. Start it with "
            "keras.Input(shape), the shape of one time step without batch and time."
        )
    return functional


def paths_of(network, inside=None, within=""):
    """The operations of a network and of its nested models, each with its path: its
    name after those of the models around it.

    Args:
        network: A Functional or Sequential model.
        inside: As in `whole_of`. Defaults to `None`.
        within: String, what the paths begin with. Defaults to `""`.

    Returns:
        Dict of operations to strings. One that is in several models has the path of the
        first.
    """
    graphs = inside or {}
    paths: dict[keras.Operation, str] = {}
    for operation in as_graph(network).operations:
        paths.setdefault(operation, within + operation.name)
        graph = graphs.get(operation, operation)
        if keras_internals.is_graph(graph):
            paths = {**paths_of(graph, inside, f"{within}{operation.name}/"), **paths}
    return paths


def output_of(network, name, argument):
    """The symbolic output of a layer where a network calls it; `layer.output` may be
    that of a call in another network.

    Args:
        network: A Functional model, see `as_graph`.
        name: String, the name of one of its layers; a nested model counts as one.
        argument: String, the name of the argument of the user.

    Raises:
        ValueError: If there is no such layer in the network, or it calls the layer
            several times.
    """
    layer = network.get_layer(name)
    calls = [
        outputs
        for operation, _, _, outputs in keras_internals.calls_in(network)
        if operation is layer
    ]
    if len(calls) > 1:
        raise ValueError(
            f"`{argument}` must name layers that the network calls once. Received: "
            f"{name!r}, which it calls {len(calls)} times with an output each. Name a "
            "layer that follows the call you mean, or put an Identity layer there."
        )
    # A layer that is not called is an input.
    outputs = (
        keras.tree.pack_sequence_as(layer.output, calls[0]) if calls else layer.output
    )
    return keras_internals.unpack_single(outputs)

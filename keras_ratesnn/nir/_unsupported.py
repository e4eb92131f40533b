"""The errors: what of a network NIR cannot describe, and what of a file this library cannot run."""


def refused_layer(layer, reason):
    """The error for a layer, or an operation, of a network that is exported."""
    return ValueError(
        "`model` must be a network that NIR can describe. Received: "
        f"layer {layer.name!r} of type {type(layer).__name__}: {reason}"
    )


def refused_node(node, reason):
    """The error for a node of a file."""
    return ValueError(
        "`path` must be a NIR file of a network that keras_ratesnn can run. Received: "
        f"node {node.name!r} of type {node.type}: {reason}"
    )

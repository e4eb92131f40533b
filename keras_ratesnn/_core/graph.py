"""The walk through a network's graph, and what a network must be for it."""

import keras

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import keras_internals
from keras_ratesnn.layers import Neuron, NeuronCell


def as_graph(network, argument="network"):
    """The Functional graph of a Functional or Sequential model.

    Args:
        network: What the user passed.
        argument: String, the name of the argument it was passed as. Defaults to `"network"`.

    Returns:
        A Functional model: `network` itself, or the one that a Sequential model keeps inside.

    Raises:
        TypeError: If `network` is neither Functional nor Sequential.
        ValueError: If it is a Sequential without an input shape.
    """
    if not keras_internals.is_graph(network):
        raise TypeError(
            f"`{argument}` must be a Functional or Sequential Keras model of one time step, whose graph can be walked. "
            f"Received: {argument}={network!r} of type {type(network).__name__}. Build it as keras.Model(inputs, outputs) "
            "from keras.Input, or as keras.Sequential([keras.Input(shape), ...])."
        )
    functional = keras_internals.functional_of(network)
    if functional is None:
        raise ValueError(
            f"`{argument}` must know its input shape. Received: {argument}={network!r}, a Sequential that is not built. "
            "Start it with keras.Input(shape), the shape of one time step without batch and time."
        )
    return functional


def walk(network, signals, rule, training):
    """Runs a network's graph, every operation through `rule`.

    Nested Functional and Sequential models are walked into. A signal is any object that is not a pytree; what the
    signals are is the rule's business.

    Args:
        network: A Functional model, see `as_graph`.
        signals: List with one signal for each of `network.inputs`.
        rule: A `keras_ratesnn.gradients.base.Rule`: has a method for each kind of operation.
        training: Boolean, passed on to layers as Keras' own Functional call does.

    Returns:
        Signals in the structure of the network's outputs.
    """

    def step_through(operation):
        if keras_internals.is_graph(operation):
            return lambda inputs, **_: walk(as_graph(operation), match_inputs(as_graph(operation), inputs), rule, training)
        apply = getattr(rule, layer_kinds.kind_of(operation))

        def call(*args, **kwargs):
            # Keras' Functional models let the model's own `training` win over one written into the graph.
            kwargs.pop("training", None)
            if keras_internals.takes_training(operation):
                kwargs["training"] = training
            return apply(operation, args, kwargs)

        return call

    return keras_internals.run_through_graph(network, signals, step_through)


def neurons_of(network):
    """All neuron layers of a network, in the order of its operations, those of nested models included.

    Args:
        network: A Functional model, see `as_graph`.

    Raises:
        ValueError: If a layer hides neurons inside, where `walk` cannot see them.
    """
    neurons = []
    for operation in network.operations:
        if keras_internals.is_graph(operation):
            neurons += neurons_of(as_graph(operation))
        elif isinstance(operation, Neuron):
            neurons.append(operation)
        elif isinstance(operation, keras.layers.Layer):
            inside = keras_internals.with_sublayers(operation)
            hidden = [layer for layer in inside if isinstance(layer, (Neuron, NeuronCell))]
            if hidden:
                raise ValueError(
                    f"`network` must not hide neurons inside other layers. Received: layer {operation.name!r} of type "
                    f"{type(operation).__name__}, which contains {hidden[0].name!r} of type {type(hidden[0]).__name__}: "
                    "it could not be run through time. Put the neuron after the layer, as a layer of its own: Dense(10) and "
                    "then LIF(), not Dense(10, activation=LIF()); or make the outer layer a Functional or Sequential model."
                )
    return neurons


def check_neurons(network):
    """Raises ValueError unless the network has neurons, all of them where `walk` can see them."""
    if not neurons_of(network):
        raise ValueError(
            f"`network` must contain a neuron layer. Received: network={network.name!r} without any. Put "
            "keras_ratesnn.layers.LIF() after its layers, in the place of their activations."
        )


def match_inputs(network, inputs):
    """The user's inputs as a flat list in the order of `network.inputs`, whatever structure Keras would accept.

    Args:
        network: A Functional model, see `as_graph`.
        inputs: Tensor, list or dict of tensors (by the names of the inputs).

    Raises:
        ValueError: If their number or names do not fit.
    """
    names = [tensor.name for tensor in network.inputs]
    if isinstance(inputs, dict) and not isinstance(keras_internals.inputs_structure(network), dict):
        missing = [name for name in names if name not in inputs]
        if missing:
            raise ValueError(
                f"The network's inputs are named {names}. Received a dict without {missing}: keys {sorted(inputs)}."
            )
        return [inputs[name] for name in names]
    flat = keras.tree.flatten(inputs)
    if len(flat) != len(names):
        raise ValueError(f"The network has {len(names)} inputs, named {names}. Received: {len(flat)} tensors.")
    return flat

"""How Keras stores a network. No other file reads Keras' private attributes; `tests/test_graph.py` guards those used here."""

import keras

from keras_ratesnn import operations
from keras_ratesnn.layers import Neuron, NeuronCell


def as_graph(network):
    """The Functional graph of a Functional or Sequential model.

    Args:
        network: What the user passed as `network`.

    Returns:
        A Functional model: `network` itself, or the one that a Sequential model keeps inside.

    Raises:
        TypeError: If `network` is neither Functional nor Sequential.
        ValueError: If it is a Sequential without an input shape.
    """
    if not _is_graph(network):
        raise TypeError(
            "`network` must be a Functional or Sequential Keras model of one time step, whose graph can be walked. "
            f"Received: network={network!r} of type {type(network).__name__}. Build it as keras.Model(inputs, outputs) "
            "from keras.Input, or as keras.Sequential([keras.Input(shape), ...])."
        )
    if isinstance(network, keras.Sequential):
        if network._functional is None:
            raise ValueError(
                f"`network` must know its input shape. Received: network={network!r}, a Sequential that is not built. "
                "Start it with keras.Input(shape), the shape of one time step without batch and time."
            )
        return network._functional
    return network


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
        if _is_graph(operation):
            return lambda inputs, **_: walk(as_graph(operation), keras.tree.flatten(inputs), rule, training)
        apply = getattr(rule, operations.kind_of(operation))

        def call(*args, **kwargs):
            # Keras' Functional models let the model's own `training` win over one written into the graph.
            kwargs.pop("training", None)
            if "training" in getattr(operation, "_call_context_args", ()):
                kwargs["training"] = training
            return apply(operation, args, kwargs)

        return call

    return _unpack_singleton(network._run_through_graph(signals, operation_fn=step_through))


def check_neurons(network):
    """Raises ValueError unless the network has neurons, all of them where `walk` can see them.

    Args:
        network: A Functional model, see `as_graph`.
    """
    if not _count_neurons(network):
        raise ValueError(
            f"`network` must contain a neuron layer. Received: network={network.name!r} without any. Use "
            "keras_ratesnn.layers.LIF() as the activation of its layers."
        )


def _count_neurons(network):
    neurons = 0
    for operation in network.operations:
        if _is_graph(operation):
            neurons += _count_neurons(as_graph(operation))
        elif isinstance(operation, Neuron):
            neurons += 1
        elif isinstance(operation, keras.layers.Layer):
            hidden = [layer for layer in operation._flatten_layers() if isinstance(layer, (Neuron, NeuronCell))]
            if hidden:
                raise ValueError(
                    f"`network` must not hide neurons inside other layers. Received: layer {operation.name!r} of type "
                    f"{type(operation).__name__}, which contains {hidden[0].name!r} of type {type(hidden[0]).__name__}: "
                    "it could not be run through time. Make the neuron a node of the graph of its own, between the "
                    "layers, or make the outer layer a Functional or Sequential model."
                )
    return neurons


def match_inputs(network, inputs):
    """The user's inputs as a flat list in the order of `network.inputs`, whatever structure Keras would accept.

    Args:
        network: A Functional model, see `as_graph`.
        inputs: Tensor, list or dict of tensors (by the names of the inputs).

    Raises:
        ValueError: If their number or names do not fit.
    """
    names = [tensor.name for tensor in network.inputs]
    if isinstance(inputs, dict) and not isinstance(network._inputs_struct, dict):
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


def outputs_of(network):
    """The symbolic outputs of a Functional model, in the structure that a call of it returns."""
    return _unpack_singleton(network._outputs_struct)


def reset_compiled_functions(model):
    """Makes a compiled Keras model trace its train, test and predict functions anew, after an attribute has changed."""
    model.train_function = None
    model.test_function = None
    model.predict_function = None


def _is_graph(operation):
    """Whether an operation is a model whose call is nothing but a run through its graph."""
    call = getattr(type(operation), "call", None)
    return isinstance(operation, keras.Model) and call in (_FUNCTIONAL_CALL, keras.Sequential.call)


def _unpack_singleton(outputs):
    """As Functional.call does: a list of one output is that output."""
    return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs


def _functional_class():
    inputs = keras.Input((1,))
    return type(keras.Model(inputs, inputs))


_FUNCTIONAL_CALL = _functional_class().call

"""Copies of a network with other activations: the ordinary network for comparison, and
that of integer spikes."""

import keras

from keras_ratesnn.layers import ILIF, Neuron


def relu_network(network):
    """A copy of the network with a ReLU instead of each neuron layer: an ordinary Keras
    model, with its own weights.

    Args:
        network: A Functional or Sequential network of one time step.
    """
    return _with_activations(network, keras.layers.ReLU)


def integer_network(network, levels):
    """A copy of the network with neurons of integer spikes instead of its own, with its
    own weights.

    Args:
        network: A Functional or Sequential network of one time step.
        levels: Integer D, the most spikes in a step.
    """
    return _with_activations(network, lambda **options: ILIF(levels, **options))


def _with_activations(network, new):
    def clone(layer):
        if isinstance(layer, Neuron):
            return new(name=layer.name, dtype=layer.dtype_policy)
        return type(layer).from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=clone, recursive=True)

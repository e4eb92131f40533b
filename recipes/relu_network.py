"""The ordinary network for comparison with a spiking one."""

import keras

from keras_ratesnn.layers import Neuron


def relu_network(network):
    """A copy of the network with a ReLU instead of each neuron layer: an ordinary Keras model, with its own weights.

    Args:
        network: A Functional or Sequential network of one time step.
    """

    def clone(layer):
        if isinstance(layer, Neuron):
            return keras.layers.ReLU(name=layer.name, dtype=layer.dtype_policy)
        return type(layer).from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=clone, recursive=True)

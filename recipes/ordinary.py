"""The ordinary network that a spiking one is compared with."""

import keras

from keras_ratesnn.layers import Neuron


def without_time(network):
    """The same network with a ReLU in the place of each layer of neurons: an ordinary Keras model, with weights of its own.

    Args:
        network: A Functional or Sequential network of one time step.
    """

    def clone(layer):
        if isinstance(layer, Neuron):
            return keras.layers.ReLU(name=layer.name, dtype=layer.dtype_policy)
        return type(layer).from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=clone, recursive=True)

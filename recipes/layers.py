"""Layers of the recipes' networks, and copies of a network with other activations:
the ordinary network for comparison, and that of integer spikes."""

import keras

import keras_ratesnn
from keras_ratesnn.layers import ILIF, Neuron

SPIKE_SCALE = 2.74
"""The factor of spikes after neurons whose inputs have standardised kernels, as in
`keras_ratesnn.models`."""


def spiking_convolution(x, filters, strides=1, normalization="batch"):
    """A 3x3 convolution, its normalisation and LIF neurons.

    Args:
        x: Tensor, images.
        filters: Number of channels; fractions are rounded, to at least one.
        strides: Integer. Defaults to `1`.
        normalization: `"batch"`; `"weight"`, the standardised kernels and slower
            neurons of OTTT; `"online"`, the renormalisation and stabilised neurons of
            OS. Defaults to `"batch"`.
    """
    options = {"strides": strides, "padding": "same"}
    filters = channels(filters, 1)
    if normalization == "weight":
        x = keras_ratesnn.layers.WSConv2D(filters, 3, **options)(x)
        x = keras_ratesnn.layers.LIF(decay=0.5)(x)
        return keras.layers.Rescaling(SPIKE_SCALE)(x)
    # A bias of the convolution would have no effect before a normalisation, which has
    # its own.
    x = keras.layers.Conv2D(filters, 3, use_bias=False, **options)(x)
    if normalization == "online":
        x = keras_ratesnn.layers.OnlineRenormalization(epsilon=1e-5)(x)
        return keras_ratesnn.layers.LIF(threshold_stabilizer=True)(x)
    return keras_ratesnn.layers.LIF()(normalized(x))


def channels(number, width):
    """A number of channels or units, multiplied by the width: at least one."""
    return max(1, round(number * width))


def normalized(x):
    """The batch normalisation of most recipes."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def classifier(inputs, x, classes, name):
    """The model that ends in the logits of classes."""
    logits = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def on_pixels(network, mean, deviation):
    """Adds the normalisation of raw pixels before a network.

    Args:
        network: A Keras model of images in Keras' image data format.
        mean: Tuple, the mean pixel of each channel.
        deviation: Tuple, the standard deviation of each channel.

    Returns:
        A Keras model.
    """
    pixels = keras.Input(network.input_shape[1:], name="pixels")
    scale = [1 / spread for spread in deviation]
    offset = [-middle / spread for middle, spread in zip(mean, deviation, strict=True)]
    normalize = keras.layers.Rescaling(scale, offset)
    return keras.Model(pixels, network(normalize(pixels)), name=network.name)


def on_event_frames(image_shape, classes, width):
    """VGGSNN for event frames of this shape, without normalisation of the input: counts
    are small, and most are zero."""
    return keras_ratesnn.models.VGGSNN(
        input_shape=image_shape, classes=classes, width=width
    ).network


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


def started_network(network, initial_membrane):
    """A copy of the network whose neurons start at this membrane, with the same
    weights.

    Args:
        network: A Functional or Sequential network of one time step.
        initial_membrane: Float.
    """

    def started(layer):
        config = {**layer.get_config(), "initial_membrane": initial_membrane}
        return type(layer).from_config(config)

    copy = _with_neurons(network, started)
    copy.set_weights(network.get_weights())
    return copy


def _with_activations(network, new):
    return _with_neurons(
        network, lambda layer: new(name=layer.name, dtype=layer.dtype_policy)
    )


def _with_neurons(network, new):
    def clone(layer):
        if isinstance(layer, Neuron):
            return new(layer)
        return type(layer).from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=clone, recursive=True)

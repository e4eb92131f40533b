"""Building blocks of the recipes' networks."""

import keras

import keras_ratesnn
from keras_ratesnn import models

SPIKE_SCALE = 2.74
"""By what spikes are multiplied after neurons whose inputs have standardised kernels,
as in `keras_ratesnn.models`."""


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
    filters = max(1, round(filters))
    if normalization == "weight":
        x = keras_ratesnn.layers.WSConv2D(filters, 3, **options)(x)
        return keras.layers.Rescaling(SPIKE_SCALE)(
            keras_ratesnn.layers.LIF(decay=0.5)(x)
        )
    # A bias of the convolution would have no effect before a normalisation, which has
    # its own.
    x = keras.layers.Conv2D(filters, 3, use_bias=False, **options)(x)
    if normalization == "online":
        x = keras_ratesnn.layers.OnlineRenormalization(epsilon=1e-5)(x)
        return keras_ratesnn.layers.LIF(threshold_stabilizer=True)(x)
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return keras_ratesnn.layers.LIF()(x)


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
    scale = [1 / of_channel for of_channel in deviation]
    offset = [-m / of_channel for m, of_channel in zip(mean, deviation, strict=True)]
    return keras.Model(
        pixels,
        network(keras.layers.Rescaling(scale, offset)(pixels)),
        name=network.name,
    )


def parametric_lif_network(image_shape, classes, blocks, units, width):
    """The network of PLIF for event frames: blocks of a 3x3 convolution of 128 channels
    and max pooling, two dense layers.

    Its authors end in spikes of ten neurons for each class, and train their mean with a
    squared error; this one ends in logits.

    Args:
        image_shape: `(height, width, channels)`.
        classes: Integer.
        blocks: Integer, the number of convolutions.
        units: Integer, those of the dense layer with neurons.
        width: Float that multiplies channels and units.

    Source: Fang et al., "Incorporating Learnable Membrane Time Constant to Enhance
    Learning of Spiking Neural Networks", ICCV 2021.
    """

    def neurons():
        return keras_ratesnn.layers.ParametricLIF(
            decay=0.5, reset="hard", decay_input=True, surrogate="atan"
        )

    inputs = x = keras.Input(image_shape, name="pixels")
    for _ in range(blocks):
        x = keras.layers.Conv2D(
            max(1, round(128 * width)), 3, padding="same", use_bias=False
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = keras.layers.MaxPooling2D(2)(neurons()(x))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    x = neurons()(keras.layers.Dense(max(1, round(units * width)), use_bias=False)(x))
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(
        inputs, keras.layers.Dense(classes, name="logits")(x), name="parametric_lif"
    )


def spoken_words_network(inputs, classes, layers, units, dropout, width):
    """Dense layers with batch normalisation and neurons that learn how slowly they
    forget, for spikes of channels of sound.

    Args:
        inputs: Integer, the number of channels.
        classes: Integer.
        layers: Integer, the number of layers with neurons.
        units: Integer, their neurons.
        dropout: Float in [0, 1).
        width: Float that multiplies the units.
    """
    spikes = x = keras.Input((inputs,), name="spikes")
    for _ in range(layers):
        x = keras.layers.Dense(max(1, round(units * width)), use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = keras_ratesnn.layers.ParametricLIF(
            decay=0.9, per_channel=True, decay_input=True
        )(x)
        x = keras.layers.Dropout(dropout)(x)
    return keras.Model(
        spikes, keras.layers.Dense(classes, name="logits")(x), name="spoken_words"
    )


def on_event_frames(image_shape, classes, width):
    """VGGSNN for event frames of this shape, without normalisation of the input: counts
    are small, and most are zero."""
    return models.VGGSNN(input_shape=image_shape, classes=classes, width=width).network

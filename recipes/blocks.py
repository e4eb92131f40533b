"""Building blocks of the recipes' networks."""

import keras

import keras_ratesnn
from keras_ratesnn import models
from keras_ratesnn.models._blocks import SPIKE_SCALE


def spiking_convolution(x, filters, strides=1, normalization="batch"):
    """A 3x3 convolution, its normalisation and LIF neurons.

    Args:
        x: Tensor, images.
        filters: Number of channels; fractions are rounded, to at least one.
        strides: Integer. Defaults to `1`.
        normalization: `"batch"`; `"weight"`, the standardised kernels and slower neurons of OTTT; `"online"`, the
            renormalisation and stabilised neurons of OS. Defaults to `"batch"`.
    """
    options = {"strides": strides, "padding": "same"}
    filters = max(1, round(filters))
    if normalization == "weight":
        x = keras_ratesnn.layers.WSConv2D(filters, 3, **options)(x)
        return keras.layers.Rescaling(SPIKE_SCALE)(keras_ratesnn.layers.LIF(decay=0.5)(x))
    # A bias of the convolution would have no effect before a normalisation, which has its own.
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
    return keras.Model(pixels, network(keras.layers.Rescaling(scale, offset)(pixels)), name=network.name)


def on_event_frames(image_shape, classes, width):
    """VGGSNN for event frames of this shape, without normalisation of the input: counts are small, and most are zero."""
    return models.VGGSNN(input_shape=image_shape, classes=classes, width=width).network

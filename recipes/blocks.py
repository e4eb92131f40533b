"""What the recipes' networks are built of."""

import keras

import keras_ratesnn


def spiking_convolution(x, filters, strides=1):
    """A 3x3 convolution, batch normalisation and LIF neurons. `filters` may be a fraction: it is rounded, one at least."""
    # The normalisation has a bias of its own: one in the convolution would be lost in it.
    x = keras.layers.Conv2D(max(1, round(filters)), 3, strides=strides, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return keras_ratesnn.layers.LIF()(x)


def on_pixels(network, mean, deviation):
    """A network behind the normalisation of raw pixels: it then takes images as the files have them.

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

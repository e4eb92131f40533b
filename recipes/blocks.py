"""What the recipes' networks are built of."""

import keras

import keras_ratesnn


def spiking_convolution(x, filters, strides=1):
    """A 3x3 convolution, batch normalisation and LIF neurons."""
    # The normalisation has a bias of its own: one in the convolution would be lost in it.
    x = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return keras_ratesnn.layers.LIF()(x)

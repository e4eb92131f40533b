"""Building blocks of the networks: functions that take a Keras tensor and layer names,
and return a Keras tensor."""

import functools
import math

import keras
from keras import layers

from keras_ratesnn.layers import LIF, OnlineRenormalization, WSConv2D
from keras_ratesnn.models._initializers import STANDARDIZED

SPIKE_SCALE = 2.74
"""Scale of spikes in networks with standardised kernels; gives a mean square of about 1
(Xiao et al., 2022)."""


def channel_axis(x=None):
    """The channel axis of a batch of images in Keras' image data format, or of `x`,
    images or tokens."""
    return (
        1
        if keras.config.image_data_format() == "channels_first"
        and (x is None or len(x.shape) == 4)
        else -1
    )


def image_shape(size, channels):
    """The shape of an image in Keras' image data format."""
    return (channels, size, size) if channel_axis() == 1 else (size, size, channels)


def sides(x):
    """The height and width of images; -1 for tokens."""
    return (
        (-1,)
        if len(x.shape) == 3
        else x.shape[2:]
        if channel_axis(x) == 1
        else x.shape[1:3]
    )


def convolution(
    x, filters, size, strides, use_bias, initialization, name, layer=layers.Conv2D
):
    """A convolution that pads all sides by half its size, like PyTorch's `padding=size
    // 2`.

    Keras' `padding="same"` is the same only for stride 1. For larger strides it pads
    less, and more at the end than at the start.

    `layer` is the class of the layer.
    """
    fan_in = size * size * x.shape[channel_axis()]
    if size > 1 and strides > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_padding")(x)
    return layer(
        filters,
        size,
        strides=strides,
        padding="same" if strides == 1 else "valid",
        use_bias=use_bias,
        kernel_initializer=initialization.kernel(),
        bias_initializer=initialization.bias(fan_in),
        name=name,
    )(x)


def batch_normalization(x, name, gamma="ones"):
    """Batch normalisation with PyTorch's defaults; PyTorch's momentum of 0.1 is 0.9 in
    Keras. `gamma` is an initializer."""
    return layers.BatchNormalization(
        channel_axis(x), momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=name
    )(x)


def online_renormalization(x, name):
    """`OnlineRenormalization` with the same epsilon as `batch_normalization`."""
    return OnlineRenormalization(axis=channel_axis(), epsilon=1e-5, name=name)(x)


stabilized_neurons = functools.partial(LIF, threshold_stabilizer=True)
"""The default neurons for `online_renormalization`."""


def neurons(x, neuron, name):
    """A new neuron layer, from `neuron()`, named `name`, so that weights of learnable
    neurons load by name."""
    layer = neuron()
    layer.name = name
    return layer(x)


def conv_bn_neuron(
    x,
    filters,
    size,
    strides,
    neuron,
    use_bias,
    initialization,
    name,
    number="",
    normalization=batch_normalization,
    layer=layers.Conv2D,
):
    """A convolution, batch normalisation, and neurons unless `neuron` is `None`:
    `NAME_conv`, `NAME_bn`, `NAME_neuron`.

    `number` is the suffix of the layer names, for blocks with several units;
    `normalization` is a function `(x, name)`; for `layer` see `convolution`.
    """
    x = convolution(
        x,
        filters,
        size,
        strides,
        use_bias,
        initialization,
        f"{name}_conv{number}",
        layer,
    )
    x = normalization(x, f"{name}_bn{number}")
    return x if neuron is None else neurons(x, neuron, f"{name}_neuron{number}")


def scaled_neurons(x, neuron, name):
    """Neurons with spikes multiplied by `SPIKE_SCALE`: `NAME` and `NAME_scale`."""
    return layers.Rescaling(SPIKE_SCALE, name=f"{name}_scale")(neurons(x, neuron, name))


def conv_ws_neuron(x, filters, size, strides, neuron, name, number=""):
    """A convolution with a standardised kernel, and scaled neurons unless `neuron` is
    `None`; see `conv_bn_neuron`."""
    name_of_conv = f"{name}_conv{number}"
    x = convolution(
        x, filters, size, strides, True, STANDARDIZED, name_of_conv, WSConv2D
    )
    return x if neuron is None else scaled_neurons(x, neuron, f"{name}_neuron{number}")


def pointwise(x, units, use_bias, name, normalization=batch_normalization):
    """A dense layer on the channels of tokens or images, and a normalisation, a
    function `(x, name)`: `NAME` and `NAME_bn`."""
    if len(x.shape) == 4:
        x = layers.Conv2D(units, 1, use_bias=use_bias, name=name)(x)
    else:
        x = layers.Dense(units, use_bias=use_bias, name=name)(x)
    return normalization(x, f"{name}_bn")


def dense(x, units, initialization, name, use_bias=True):
    """A fully connected layer."""
    return layers.Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=initialization.kernel(),
        bias_initializer=initialization.bias(math.prod(x.shape[1:])),
        name=name,
    )(x)

"""Integers and their products on the backend: integers are int32, and products sums in
float32, which are exact below 2^24."""

import numpy as np
from keras import ops


def constant(array):
    """An array of integers as a tensor."""
    return ops.convert_to_tensor(np.asarray(array, "int32"))


def whole(products):
    """Sums in float32 as integers."""
    # Fast convolutions may be off by less than a half.
    return ops.cast(ops.round(products), "int32")


def convolve(inputs, kernel, strides):
    """A convolution without padding, channels last."""
    return ops.conv(
        inputs, kernel, strides=strides, padding="valid", data_format="channels_last"
    )


def convolve_each(inputs, kernel, strides):
    """A depthwise convolution without padding, channels last."""
    # TensorFlow has no strides of two lengths here.
    step = max(strides)
    is_square = min(strides) == step
    outputs = ops.depthwise_conv(
        inputs,
        kernel,
        strides=step if is_square else 1,
        padding="valid",
        data_format="channels_last",
    )
    return outputs if is_square else outputs[:, :: strides[0], :: strides[1]]

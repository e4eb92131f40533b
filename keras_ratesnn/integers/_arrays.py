"""The functions of arrays with which networks of integers run. Tests have the same of
NumPy."""

import numpy as np
from keras import ops


class KerasArrays:
    """Tensors of the backend. Integers are int32; products are sums in float32, which
    are exact below 2^24."""

    cast, clip, maximum, pad = (
        staticmethod(ops.cast),
        staticmethod(ops.clip),
        staticmethod(ops.maximum),
        staticmethod(ops.pad),
    )
    reshape, right_shift, bitwise_and = (
        staticmethod(f) for f in (ops.reshape, ops.right_shift, ops.bitwise_and)
    )
    where, matmul, zeros, shape = (
        staticmethod(f) for f in (ops.where, ops.matmul, ops.zeros, ops.shape)
    )
    broadcast_to, add_up, take = (
        staticmethod(ops.broadcast_to),
        staticmethod(ops.sum),
        staticmethod(ops.take),
    )

    @staticmethod
    def constant(array):
        return ops.convert_to_tensor(np.asarray(array, "int32"))

    @staticmethod
    def whole(products):
        # Fast convolutions may be off by less than a half.
        return ops.cast(ops.round(products), "int32")

    @staticmethod
    def convolve(inputs, kernel, strides):
        return ops.conv(
            inputs,
            kernel,
            strides=strides,
            padding="valid",
            data_format="channels_last",
        )

    @staticmethod
    def convolve_each(inputs, kernel, strides):
        # TensorFlow has no strides of two lengths here.
        step = max(strides)
        outputs = ops.depthwise_conv(
            inputs,
            kernel,
            strides=step if min(strides) == step else 1,
            padding="valid",
            data_format="channels_last",
        )
        return (
            outputs
            if min(strides) == step
            else outputs[:, :: strides[0], :: strides[1]]
        )

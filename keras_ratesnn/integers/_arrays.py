"""The functions of arrays with which networks of integers run: those of Keras, and the same in NumPy."""

import numpy as np
from keras import ops


class OfKeras:
    """Tensors of the backend. Integers are int32; products are sums in float32, which are exact below 2^24."""

    cast, clip, maximum, pad = staticmethod(ops.cast), staticmethod(ops.clip), staticmethod(ops.maximum), staticmethod(ops.pad)
    reshape, right_shift, bitwise_and = (staticmethod(f) for f in (ops.reshape, ops.right_shift, ops.bitwise_and))
    where, matmul, zeros, shape = (staticmethod(f) for f in (ops.where, ops.matmul, ops.zeros, ops.shape))
    broadcast_to, add_up, take = staticmethod(ops.broadcast_to), staticmethod(ops.sum), staticmethod(ops.take)

    @staticmethod
    def constant(array):
        return ops.convert_to_tensor(np.asarray(array, "int32"))

    @staticmethod
    def kernel(array):
        return ops.convert_to_tensor(np.asarray(array, "float32"))

    @staticmethod
    def whole(products):
        # Fast convolutions may be off by less than a half.
        return ops.cast(ops.round(products), "int32")

    @staticmethod
    def convolve(inputs, kernel, strides):
        return ops.conv(inputs, kernel, strides=strides, padding="valid", data_format="channels_last")

    @staticmethod
    def convolve_each(inputs, kernel, strides):
        # TensorFlow has no strides of two lengths here.
        step = max(strides)
        outputs = ops.depthwise_conv(
            inputs, kernel, strides=step if min(strides) == step else 1, padding="valid", data_format="channels_last"
        )
        return outputs if min(strides) == step else outputs[:, :: strides[0], :: strides[1]]


class OfNumPy:
    """Arrays of NumPy."""

    clip, maximum, reshape, right_shift = (staticmethod(f) for f in (np.clip, np.maximum, np.reshape, np.right_shift))
    bitwise_and, where, matmul, zeros = (staticmethod(f) for f in (np.bitwise_and, np.where, np.matmul, np.zeros))
    shape, broadcast_to, take = staticmethod(np.shape), staticmethod(np.broadcast_to), staticmethod(np.take)

    @staticmethod
    def cast(array, dtype):
        return np.asarray(array).astype(dtype)

    @staticmethod
    def constant(array):
        return np.asarray(array, "int32")

    @staticmethod
    def kernel(array):
        return np.asarray(array, "float32")

    @staticmethod
    def pad(array, widths, constant_values=0):
        return np.pad(array, widths, constant_values=constant_values)

    @staticmethod
    def add_up(array, axis):
        return array.sum(axis, dtype="int32")

    @staticmethod
    def whole(products):
        return products.astype("int32")

    @staticmethod
    def convolve(inputs, kernel, strides):
        return np.tensordot(_windows(inputs, kernel, strides), kernel, ((4, 5, 3), (0, 1, 2)))

    @staticmethod
    def convolve_each(inputs, kernel, strides):
        outputs = np.einsum("bhwckl,klcm->bhwcm", _windows(inputs, kernel, strides), kernel)
        return outputs.reshape(*outputs.shape[:3], -1)


def _windows(inputs, kernel, strides):
    windows = np.lib.stride_tricks.sliding_window_view(inputs, kernel.shape[:2], axis=(1, 2))
    return windows[:, :: strides[0], :: strides[1]]

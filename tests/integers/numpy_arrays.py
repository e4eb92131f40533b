"""Networks of integers run in NumPy, without a backend."""

import numpy as np

from keras_ratesnn.integers import _steps


class NumPyArrays:
    """Arrays of NumPy."""

    clip, maximum, reshape, right_shift = (
        staticmethod(f) for f in (np.clip, np.maximum, np.reshape, np.right_shift)
    )
    bitwise_and, where, matmul, zeros = (
        staticmethod(f) for f in (np.bitwise_and, np.where, np.matmul, np.zeros)
    )
    shape, broadcast_to, take = (
        staticmethod(np.shape),
        staticmethod(np.broadcast_to),
        staticmethod(np.take),
    )

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
        return np.tensordot(
            _windows(inputs, kernel, strides), kernel, ((4, 5, 3), (0, 1, 2))
        )

    @staticmethod
    def convolve_each(inputs, kernel, strides):
        outputs = np.einsum(
            "bhwckl,klcm->bhwcm", _windows(inputs, kernel, strides), kernel
        )
        return outputs.reshape(*outputs.shape[:3], -1)


def _windows(inputs, kernel, strides):
    windows = np.lib.stride_tricks.sliding_window_view(
        inputs, kernel.shape[:2], axis=(1, 2)
    )
    return windows[:, :: strides[0], :: strides[1]]


def run_in_numpy(plan, x):
    """The integer logits of a network, `(batch, classes)`, for inputs with channels
    last."""
    x = np.asarray(x, "int32")
    temporal = x.ndim == len(plan.input_shape) + 2
    batch = _steps.Batch(plan, x, NumPyArrays, temporal, _steps.kernels_of(plan))
    return sum(batch.advance(t) for t in range(plan.timesteps))

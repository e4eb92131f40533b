"""Kernels as integers: those of training, or for kernels that were not trained to be quantised those of least error."""

import numpy as np

from keras_ratesnn._core import quantized_kernels


def integer_weights(
    kernel: np.ndarray, weights: str, axis: tuple[int, ...] | None, least_error: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The integers W = clip(round(w / s), −Q, Q) of a kernel, halves to even, and the scales s.

    They are those of `keras_ratesnn._core.quantized_kernels`, in float32 as in training, which gives the same integers.

    Args:
        kernel: Array.
        weights: `"int8"`, `"int4"` or `"ternary"`.
        axis: Tuple of the axes that share a scale: all but those of the output channels. `None`: one scale for all.
        least_error: Boolean, whether the scale of int8 and int4 is that with the least squared error, of a number of scales up
            to max |w| / Q. It is better for kernels that were not trained to be quantised. Defaults to `False`.

    Returns:
        `(W, s)`: int32 integers of the shape of the kernel, and float32 scales, which broadcast to it.
    """
    kernel = np.asarray(kernel, "float32")
    axis = tuple(range(kernel.ndim)) if axis is None else axis
    integers, scale = quantized_kernels.integers_and_scale(kernel, weights, axis, np)
    if least_error and weights != "ternary":
        largest = quantized_kernels.LARGEST[weights]
        scale = _of_least_error(kernel, scale, largest, axis)
        integers = quantized_kernels.rounded(kernel, scale, largest, np)
    return integers.astype("int32"), scale


def _of_least_error(kernel, scale, largest, axis):
    best, least = scale, np.full(scale.shape, np.inf)
    for fraction in np.linspace(1.0, 0.4, 61, dtype="float32"):
        tried = scale * fraction
        error = np.square(kernel - tried * quantized_kernels.rounded(kernel, tried, largest, np))
        error = error.sum(axis, dtype="float64", keepdims=True)
        best, least = np.where(error < least, tried, best), np.minimum(error, least)
    return best

"""Kernels as integers: one scale for each output channel, or for the whole kernel, and no zero point."""

import numpy as np

LARGEST = {"int8": 127, "int4": 7, "ternary": 1}
"""The largest integer weight Q. −128 and −8 are not used."""

_THRESHOLD = 0.7
"""A ternary weight is 0 up to this fraction of the mean absolute weight."""


def integer_weights(
    kernel: np.ndarray, weights: str, axis: tuple[int, ...] | None, least_error: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The integers W = clip(round(w / s), −Q, Q) of a kernel, halves to even, and the scales s.

    The scale is max |w| / Q. A ternary weight is the sign of w where |w| > Δ = 0.7 · mean |w|, and else 0; its scale is the
    mean of these |w|. Zeros have the scale 1. Everything is in float32, as in training, which gives the same integers.

    Args:
        kernel: Array.
        weights: `"int8"`, `"int4"` or `"ternary"`.
        axis: Tuple of the axes that share a scale: all but those of the output channels. `None`: one scale for all.
        least_error: Boolean, whether the scale of int8 and int4 is that with the least squared error, of a number of scales up
            to max |w| / Q. It is better for kernels that were not trained to be quantised. Defaults to `False`.

    Returns:
        `(W, s)`: int32 integers of the shape of the kernel, and float32 scales, which broadcast to it.

    Source: Jacob et al., CVPR 2018; Li and Liu, "Ternary weight networks", 2016.
    """
    kernel = np.asarray(kernel, "float32")
    axis = tuple(range(kernel.ndim)) if axis is None else axis
    size = np.abs(kernel)
    if weights == "ternary":
        kept = size > np.float32(_THRESHOLD) * size.mean(axis, keepdims=True)
        count = kept.sum(axis, keepdims=True).astype("float32")
        scale = _or_one(np.where(kept, size, 0).sum(axis, keepdims=True) / np.maximum(count, 1))
        return np.where(kept, np.sign(kernel), 0).astype("int32"), scale
    largest = LARGEST[weights]
    scale = _or_one(size.max(axis, keepdims=True) / np.float32(largest))
    if least_error:
        scale = _of_least_error(kernel, scale, largest, axis)
    return _rounded(kernel, scale, largest).astype("int32"), scale


def _or_one(scale):
    return np.where(scale > 0, scale, np.float32(1)).astype("float32")


def _rounded(kernel, scale, largest):
    return np.clip(np.rint(kernel / scale), -largest, largest)


def _of_least_error(kernel, scale, largest, axis):
    best, least = scale, np.full(scale.shape, np.inf)
    for fraction in np.linspace(1.0, 0.4, 61, dtype="float32"):
        tried = scale * fraction
        error = np.square(kernel - tried * _rounded(kernel, tried, largest)).sum(axis, dtype="float64", keepdims=True)
        best, least = np.where(error < least, tried, best), np.minimum(error, least)
    return best

"""Keras' convolutions and pooling, for programs that have others: their padding, and
kernels without dilation."""

from collections.abc import Sequence

import numpy as np


def padding_of(
    padding: str,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """Zeros before and after each axis with `"valid"`, `"same"` or `"causal"`; with
    `"same"` the odd one goes to the end."""
    if padding == "valid":
        return [(0, 0)] * len(sizes)
    extents = [
        (taps - 1) * step + 1 for taps, step in zip(kernel, dilation, strict=True)
    ]
    if padding == "causal":
        return [(extent - 1, 0) for extent in extents]
    along = zip(sizes, extents, strides, strict=True)
    totals = [
        max((-(-size // stride) - 1) * stride + extent - size, 0)
        for size, extent, stride in along
    ]
    return [(total // 2, total - total // 2) for total in totals]


def without_dilation(kernel: np.ndarray, axis: int, dilation: int) -> np.ndarray:
    """The kernel of the same convolution with a dilation of 1 along an axis."""
    shape = list(kernel.shape)
    shape[axis] = (shape[axis] - 1) * dilation + 1
    dilated = np.zeros(shape, kernel.dtype)
    np.moveaxis(dilated, axis, 0)[::dilation] = np.moveaxis(kernel, axis, 0)
    return dilated


def convolved(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """The sizes of the axes of the output of a convolution or pooling; further sizes of
    the input are left out."""
    along = zip(sizes, kernel, strides, padding, dilation, strict=False)
    return tuple(
        (size + sum(zeros) - (taps - 1) * step - 1) // stride + 1
        for size, taps, stride, zeros, step in along
    )

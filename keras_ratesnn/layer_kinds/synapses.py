"""How many multiply-adds a layer of Keras does, and how many synapses its inputs
feed."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_ratesnn._core.annotations import Sizes


def dense_multiply_adds(layer: Any, input_shape: Sizes, output_shape: Sizes) -> int:
    return math.prod(output_shape[1:-1]) * math.prod(layer.kernel.shape)


def einsum_multiply_adds(layer: Any, input_shape: Sizes, output_shape: Sizes) -> int:
    """The product of the sizes of all letters except the batch axis; an ellipsis stands
    for the remaining axes."""
    input_letters, kernel_letters = layer.equation.split("->")[0].split(",")
    sizes = dict(zip(kernel_letters, layer.kernel.shape, strict=True))
    before, ellipsis, after = input_letters.partition("...")
    sizes.update(zip(before, input_shape, strict=False))
    sizes.update(zip(reversed(after), reversed(input_shape), strict=False))
    product = math.prod(sizes.values())
    if ellipsis:
        product *= math.prod(input_shape[len(before) : len(input_shape) - len(after)])
    return product // input_shape[0]


def convolution_multiply_adds(
    layer: Any, input_shape: Sizes, output_shape: Sizes
) -> int:
    return _positions(layer, output_shape) * math.prod(layer.kernel.shape)


def convolution_fan_out(
    layer: Any, input_shape: Sizes, output_shape: Sizes
) -> np.ndarray:
    """The synapses that each input feeds: fewer at the edges than in the middle, and
    where strides leave inputs out."""
    outputs = layer.kernel.shape[-1] // getattr(layer, "groups", 1)
    wide, narrow = _space(layer, input_shape), _space(layer, output_shape)
    return _over_space(layer, outputs, _windows_of_places, wide, narrow)


def transposed_fan_out(
    layer: Any, input_shape: Sizes, output_shape: Sizes
) -> np.ndarray:
    """The synapses that each input feeds: fewer at the edges where padding "same" cuts
    outputs off."""
    outputs = layer.kernel.shape[-2]
    wide, narrow = _space(layer, output_shape), _space(layer, input_shape)
    return _over_space(layer, outputs, _places_of_windows, wide, narrow)


def _over_space(
    layer: Any,
    channels: int,
    count_along: Callable[..., np.ndarray],
    wide: Sizes,
    narrow: Sizes,
) -> np.ndarray:
    """The product of the counts along each axis, times the number of channels, with an
    axis of channels."""
    kernel = layer.kernel.shape[:-2]
    strides = _for_axes(layer.strides, kernel)
    dilations = _for_axes(layer.dilation_rate, kernel)
    counts: Any = channels
    for axis, size in enumerate(wide):
        indices = _windows(
            layer.padding,
            size,
            narrow[axis],
            kernel[axis],
            strides[axis],
            dilations[axis],
        )
        counts = np.multiply.outer(counts, count_along(indices, size))
    channel_axis = 0 if layer.data_format == "channels_first" else -1
    return np.expand_dims(counts, channel_axis)


def _windows_of_places(indices: np.ndarray, size: int) -> np.ndarray:
    """How many windows each place of an axis is in, `(size,)`."""
    inside = (indices >= 0) & (indices < size)
    return np.bincount(indices[inside], minlength=size)


def _places_of_windows(indices: np.ndarray, size: int) -> np.ndarray:
    """How many places of an axis each window has, `(windows,)`."""
    inside = (indices >= 0) & (indices < size)
    return inside.sum(axis=1)


def _windows(
    padding: str, wide: int, narrow: int, kernel: int, stride: int, dilation: int
) -> np.ndarray:
    """The places along an axis of each window of a convolution, `(narrow, kernel)`;
    those of the padding are outside.

    A convolution has its inputs at the places and an output for each window, a
    transposed convolution the reverse.
    """
    extent = (kernel - 1) * dilation + 1
    before = {
        "valid": 0,
        "causal": extent - 1,
        "same": max((narrow - 1) * stride + extent - wide, 0) // 2,
    }[padding]
    starts = np.arange(narrow) * stride - before
    return np.add.outer(starts, np.arange(kernel) * dilation)


def _for_axes(value: int | Sizes, axes: Sequence[int]) -> Sizes:
    return value if isinstance(value, tuple) else (value,) * len(axes)


def transposed_multiply_adds(
    layer: Any, input_shape: Sizes, output_shape: Sizes
) -> int:
    return _positions(layer, input_shape) * math.prod(layer.kernel.shape)


def separable_multiply_adds(layer: Any, input_shape: Sizes, output_shape: Sizes) -> int:
    depthwise = math.prod(layer.depthwise_kernel.shape)
    pointwise = math.prod(layer.pointwise_kernel.shape)
    return _positions(layer, output_shape) * (depthwise + pointwise)


def _positions(layer: Any, shape: Sizes) -> int:
    return math.prod(_space(layer, shape))


def _space(layer: Any, shape: Sizes) -> Sizes:
    return shape[2:] if layer.data_format == "channels_first" else shape[1:-1]

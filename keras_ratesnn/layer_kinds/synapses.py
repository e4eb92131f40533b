"""How many multiply-adds a layer of Keras does, and how many synapses its inputs
feed."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def dense_multiply_adds(
    layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> int:
    return math.prod(output_shape[1:-1]) * math.prod(layer.kernel.shape)


def einsum_multiply_adds(
    layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> int:
    """The product of the sizes of all letters except the batch axis; an ellipsis stands
    for the remaining axes."""
    of_input, of_kernel = layer.equation.split("->")[0].split(",")
    sizes = dict(zip(of_kernel, layer.kernel.shape, strict=True))
    before, _, after = of_input.partition("...")
    sizes.update(zip(before, input_shape, strict=False))
    sizes.update(zip(reversed(after), reversed(input_shape), strict=False))
    elided = (
        input_shape[len(before) : len(input_shape) - len(after)]
        if "..." in of_input
        else ()
    )
    return math.prod(sizes.values()) * math.prod(elided) // input_shape[0]


def convolution_multiply_adds(
    layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> int:
    return _positions(layer, output_shape) * math.prod(layer.kernel.shape)


def convolution_fan_out(
    layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> np.ndarray:
    """Less at the edges than in the middle, and where strides leave inputs out."""
    fed = functools.partial(_fed_along, layer.padding)
    outputs = layer.kernel.shape[-1] // getattr(layer, "groups", 1)
    return _over_space(
        layer, outputs, fed, _space(layer, input_shape), _space(layer, output_shape)
    )


def transposed_fan_out(
    layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> np.ndarray:
    """Less at the edges where padding "same" cuts outputs off."""
    feeding = functools.partial(_feeding_along, layer.padding)
    return _over_space(
        layer,
        layer.kernel.shape[-2],
        feeding,
        _space(layer, output_shape),
        _space(layer, input_shape),
    )


def _over_space(
    layer: Any,
    channels: int,
    count_along: Callable[..., np.ndarray],
    wide: tuple[int, ...],
    narrow: tuple[int, ...],
) -> np.ndarray:
    """The product of the counts along each axis, times the number of channels, with an
    axis of channels."""
    kernel = layer.kernel.shape[:-2]
    of_axes = zip(
        wide,
        narrow,
        kernel,
        _each(layer.strides, kernel),
        _each(layer.dilation_rate, kernel),
        strict=True,
    )
    counts = functools.reduce(
        np.multiply.outer, [count_along(*of_axis) for of_axis in of_axes]
    )
    return np.expand_dims(
        counts * channels, 0 if layer.data_format == "channels_first" else -1
    )


def _fed_along(padding: str, wide: int, *of_axis: int) -> np.ndarray:
    """How many windows along an axis each of its `wide` places is in, `(wide,)`."""
    places = _windows(padding, wide, *of_axis)
    return np.bincount(places[(places >= 0) & (places < wide)], minlength=wide)


def _feeding_along(padding: str, wide: int, *of_axis: int) -> np.ndarray:
    """How many of the `wide` places of an axis each window has, `(narrow,)`."""
    places = _windows(padding, wide, *of_axis)
    return ((places >= 0) & (places < wide)).sum(axis=1)


def _windows(
    padding: str, wide: int, narrow: int, kernel: int, stride: int, dilation: int
) -> np.ndarray:
    """The places of each window of a convolution along an axis, `(narrow, kernel)`;
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
    return (
        np.add.outer(np.arange(narrow) * stride, np.arange(kernel) * dilation) - before
    )


def _each(value: int | tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * len(axes)


def transposed_multiply_adds(
    layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> int:
    return _positions(layer, input_shape) * math.prod(layer.kernel.shape)


def separable_multiply_adds(
    layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> int:
    kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(
        layer.pointwise_kernel.shape
    )
    return _positions(layer, output_shape) * kernels


def _positions(layer: Any, shape: tuple[int, ...]) -> int:
    return math.prod(_space(layer, shape))


def _space(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:] if layer.data_format == "channels_first" else shape[1:-1]

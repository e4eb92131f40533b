"""How many multiply-adds a layer of Keras does, and how many synapses its inputs feed."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def dense_multiply_adds(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    return math.prod(output_shape[1:-1]) * math.prod(layer.kernel.shape)


def einsum_multiply_adds(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    """The product of the sizes of all letters except the batch axis; an ellipsis stands for the remaining axes."""
    of_input, of_kernel = layer.equation.split("->")[0].split(",")
    sizes = dict(zip(of_kernel, layer.kernel.shape, strict=True))
    before, _, after = of_input.partition("...")
    sizes.update(zip(before, input_shape, strict=False))
    sizes.update(zip(reversed(after), reversed(input_shape), strict=False))
    elided = input_shape[len(before) : len(input_shape) - len(after)] if "..." in of_input else ()
    return math.prod(sizes.values()) * math.prod(elided) // input_shape[0]


def convolution_multiply_adds(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    return _positions(layer, output_shape) * math.prod(layer.kernel.shape)


def convolution_fan_out(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> np.ndarray:
    """Less at the edges than in the middle, and where strides leave inputs out."""
    *kernel, _, outputs = layer.kernel.shape
    sizes, found = _space(layer, input_shape), _space(layer, output_shape)
    along_axes = zip(sizes, found, kernel, _each(layer.strides, kernel), _each(layer.dilation_rate, kernel), strict=True)
    counts = functools.reduce(np.multiply.outer, [_fan_out_along(layer.padding, *of_axis) for of_axis in along_axes])
    return np.expand_dims(counts * (outputs // getattr(layer, "groups", 1)), 0 if layer.data_format == "channels_first" else -1)


def _fan_out_along(padding: str, size: int, outputs: int, kernel: int, stride: int, dilation: int) -> np.ndarray:
    """How many of the outputs along an axis each of `size` inputs feeds, `(size,)`."""
    extent = (kernel - 1) * dilation + 1
    before = {"valid": 0, "causal": extent - 1, "same": max((outputs - 1) * stride + extent - size, 0) // 2}[padding]
    places = np.add.outer(np.arange(outputs) * stride, np.arange(kernel) * dilation) - before
    return np.bincount(places[(places >= 0) & (places < size)], minlength=size)


def _each(value: int | tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * len(axes)


def transposed_multiply_adds(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    return _positions(layer, input_shape) * math.prod(layer.kernel.shape)


def separable_multiply_adds(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return _positions(layer, output_shape) * kernels


def _positions(layer: Any, shape: tuple[int, ...]) -> int:
    return math.prod(_space(layer, shape))


def _space(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:] if layer.data_format == "channels_first" else shape[1:-1]

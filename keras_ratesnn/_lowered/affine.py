"""Layers with weights, and what scales signals: rules `(lowering, layer, wire) ->
wire`."""

from typing import Any

import numpy as np
from keras import layers, ops

from keras_ratesnn._core.convolutions import padding_of
from keras_ratesnn._lowered.nodes import AffineNode
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import WSConv2D, WSDense
from keras_ratesnn.layers.quantized import QuantizedKernels


def weights_of(layer):
    """The kernel that calls use in full precision, and the bias or `None`."""
    kernel = layer.kernel
    if isinstance(layer, QuantizedKernels):
        kernel = layer.used_kernel()
    elif isinstance(layer, (WSConv2D, WSDense)):
        kernel = layer.standardized_in_full_precision(kernel)
    bias = _float64(layer.bias) if layer.use_bias else None
    return _float64(kernel), bias


def _float64(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


def dense(lowering, layer, wire):
    kernel, bias = weights_of(layer)
    axes = len(wire.shape) - 1
    if axes and lowering.moves(wire.shape):
        raise lowering.refused(
            layer,
            "it mixes the columns of images with channels first. Use a convolution of "
            "1x1.",
        )
    if not axes:
        kernel = in_our_order(kernel, wire)
    ones, no_padding = (1,) * axes, ((0, 0),) * axes
    kernel = kernel.reshape(*ones, *kernel.shape)
    return lowering.add(
        AffineNode(layer, (wire,), ones, ones, no_padding, kernel, bias)
    )


def convolution(lowering, layer, wire):
    kernel, bias = weights_of(layer)
    groups, axes = getattr(layer, "groups", 1), kernel.ndim - 2
    if isinstance(layer, (layers.DepthwiseConv1D, layers.DepthwiseConv2D)):
        groups = kernel.shape[-2]
        kernel = kernel.reshape(*kernel.shape[:-2], 1, -1)
    stride = tuple(np.broadcast_to(layer.strides, axes).tolist())
    dilation = tuple(np.broadcast_to(layer.dilation_rate, axes).tolist())
    around = wire.padding or ((0, 0),) * axes
    sizes = [size + sum(zeros) for size, zeros in zip(wire.shape, around, strict=False)]
    own = padding_of(layer.padding, sizes, kernel.shape[:-2], stride, dilation)
    padding = sum_of_padding(around, own)
    return lowering.add(
        AffineNode(layer, (wire,), stride, dilation, padding, kernel, bias, groups)
    )


def sum_of_padding(first, second):
    pairs = zip(first, second, strict=True)
    return tuple((a + c, b + d) for (a, b), (c, d) in pairs)


def in_our_order(values, wire):
    """A number, or values along the first axis, one for each of Keras' features, in our
    order."""
    if not np.ndim(values) or wire.order is None:
        return values
    return values[np.argsort(wire.order)]


def normalization(lowering, layer, wire):
    rule: Any = kind_of(layer).normalization
    if rule.scale_and_shift is None or rule.step_factors is not None:
        raise lowering.refused(
            layer,
            "its normalisation is not one scale and shift of each channel, the same at "
            "each step. Use BatchNormalization.",
        )
    rank = len(wire.shape) + 1
    if layer.axis % rank != (1 if lowering.moves(wire.shape) else rank - 1):
        raise lowering.refused(
            layer,
            f"its axis {layer.axis} is not that of the channels. Create it for these.",
        )
    scale, shift = rule.scale_and_shift(layer)
    return wire.scaled(layer, in_our_order(scale, wire), in_our_order(shift, wire))


def rescaling(lowering, layer, wire):
    scale, offset = _number_or_array(layer.scale), _number_or_array(layer.offset)
    if (np.ndim(scale) or np.ndim(offset)) and lowering.moves(wire.shape):
        raise lowering.refused(
            layer,
            "its scales are not those of the channels, which are first. Use one scale.",
        )
    if wire.padding and np.any(offset):
        raise lowering.refused(
            layer, "it moves the zeros of a ZeroPadding layer. Put it before that."
        )
    return wire.scaled(layer, in_our_order(scale, wire), in_our_order(offset, wire))


def _number_or_array(values):
    values = np.asarray(values, "float64")
    is_one = (values == values.flat[0]).all()
    return float(values.flat[0]) if is_one else values


RULES: dict[type, Any] = {
    layers.Dense: dense,
    WSDense: dense,
    layers.Conv1D: convolution,
    layers.Conv2D: convolution,
    WSConv2D: convolution,
    layers.DepthwiseConv1D: convolution,
    layers.DepthwiseConv2D: convolution,
    layers.Rescaling: rescaling,
}

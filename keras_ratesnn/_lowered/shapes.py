"""Pooling, sums and what moves elements: rules as those of `affine`."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from keras import layers

from keras_ratesnn._core.convolutions import padding_of
from keras_ratesnn._lowered.affine import sum_of_padding
from keras_ratesnn._lowered.nodes import (
    AddNode,
    FlattenNode,
    PoolNode,
    TimeMeanNode,
    Wire,
)
from keras_ratesnn.layers import TimeMean


def _add_linear(lowering, node, order=None):
    """Adds a node that is linear and leaves constants as they are: a scale and an
    offset of its input that are the same for all channels come after it."""
    (wire,) = node.inputs
    if wire.by_channel:
        return lowering.add(node, order)
    added = lowering.add(dataclasses.replace(node, inputs=(Wire(wire.node),)))
    return dataclasses.replace(wire, node=added.node, order=order)


def pooling(how, lowering, layer, wire):
    window, stride, ones = tuple(layer.pool_size), tuple(layer.strides), (1, 1)
    padding = tuple(padding_of(layer.padding, wire.shape[:2], window, stride, ones))
    node = PoolNode(layer, (wire,), stride, ones, padding, window, how)
    return lowering.add(node) if how == "max" else _add_linear(lowering, node)


def global_pooling(how, lowering, layer, wire):
    window, no_padding = wire.shape[:-1], ((0, 0), (0, 0))
    node = PoolNode(layer, (wire,), window, (1, 1), no_padding, window, how, whole=True)
    pooled = lowering.add(node) if how == "max" else _add_linear(lowering, node)
    if layer.keepdims:
        return pooled
    return _add_linear(lowering, FlattenNode(layer, (pooled,)))


def flatten(lowering, layer, wire):
    shape = wire.shape
    if isinstance(layer, layers.Reshape) and len(layer.target_shape) != 1:
        in_keras = lowering.in_keras(shape)
        if layer.compute_output_shape((None, *in_keras))[1:] == in_keras:
            return wire
        raise lowering.refused(
            layer, "it moves elements of images. Flatten them, or leave it out."
        )
    if len(shape) == 1:
        return wire
    indices = np.arange(math.prod(shape)).reshape(shape)
    if lowering.moves(shape):
        indices = np.moveaxis(indices, -1, 0)
    if getattr(layer, "data_format", None) == "channels_first":
        indices = np.moveaxis(indices, 0, -1)
    order = indices.ravel()
    is_ours = (order[1:] > order[:-1]).all()
    node = FlattenNode(layer, (wire,))
    return _add_linear(lowering, node, None if is_ours else order)


def zero_padding(lowering, layer, wire):
    own = layer.padding
    if not isinstance(own[0], tuple):
        own = (tuple(own),)
    around = wire.padding or ((0, 0),) * len(own)
    return dataclasses.replace(wire, padding=sum_of_padding(around, own))


def identity(lowering, layer, wire):
    return wire


def add(lowering, layer, wires):
    if len(wires) < 2:
        raise lowering.refused(
            layer, "it adds a constant. Use the bias of a layer with weights."
        )
    if any(wire.padding for wire in wires):
        raise lowering.refused(
            layer,
            "there are zeros around its inputs. Put ZeroPadding directly before a "
            "convolution.",
        )
    orders = {None if wire.order is None else tuple(wire.order) for wire in wires}
    if len({wire.shape for wire in wires}) > 1 or len(orders) > 1:
        raise lowering.refused(
            layer, "its inputs have different shapes. Add what has the same shape."
        )
    return lowering.add(AddNode(layer, tuple(wires)), wires[0].order)


def time_mean(lowering, layer, wire):
    return _add_linear(lowering, TimeMeanNode(layer, (wire,)), wire.order)


_WITHOUT_EFFECT = (
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.AlphaDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.ActivityRegularization,
    layers.Activation,
)
"""Layers that do nothing in inference; an activation other than linear is refused."""

RULES: dict[type, Any] = {
    layers.AveragePooling2D: functools.partial(pooling, "mean"),
    layers.MaxPooling2D: functools.partial(pooling, "max"),
    layers.GlobalAveragePooling2D: functools.partial(global_pooling, "mean"),
    layers.GlobalMaxPooling2D: functools.partial(global_pooling, "max"),
    layers.Flatten: flatten,
    layers.Reshape: flatten,
    layers.ZeroPadding1D: zero_padding,
    layers.ZeroPadding2D: zero_padding,
    TimeMean: time_mean,
    **dict.fromkeys(_WITHOUT_EFFECT, identity),
}

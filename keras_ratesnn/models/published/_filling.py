"""Fills the layers of a network with the weights of a checkpoint."""

import numpy as np
from keras import layers

from keras_ratesnn._core.names import listed
from keras_ratesnn.layers import Neuron
from keras_ratesnn.layers.firing_rate_scale import FiringRateScale
from keras_ratesnn.models._blocks import channel_axis
from keras_ratesnn.models._weights import HEAD
from keras_ratesnn.models.published._names import Table

PARAMETERS = ("weight", "bias", "running_mean", "running_var")
"""PyTorch's names of the weights of a layer, in Keras' order."""

COUNTER = "num_batches_tracked"


class MismatchError(Exception):
    """The weights of a checkpoint are not those of a network. The message says why."""


def strangers(weights, layout):
    """The names of weights that a layout has no place for."""
    names, unused = Table(layout.names), Table(layout.unused)
    return [name for name in weights if _layer(name, names, unused) is None]


def matched(network, weights, layout, report, left_out):
    """Pairs of a variable of the network and the array of weights that it gets.

    Args:
        network: Functional model, whose weights need not have values.
        weights: Dict of the authors' names to arrays.
        layout: `Layout`.
        report: `CheckpointReport`, to which is added what became of each weight.
        left_out: Dict of our names of layers whose weights are not read, and which the
            network may lack, to the reason.

    Raises:
        MismatchError: If a weight is left, missing, of another shape, NaN or infinite,
            or a variance is below 0.
    """
    own = {}
    for layer in network.layers:
        has_parameters = layer.weights and not isinstance(layer, Neuron)
        if has_parameters and layer.name not in left_out:
            own[layer.name] = layer
    theirs_by_layer = _by_layer(weights, layout, own, report, left_out)
    values, missing, wrong = [], [], []
    for name, layer in own.items():
        for parameter, variable in zip(PARAMETERS, layer.weights, strict=False):
            theirs = theirs_by_layer.get(name, {}).pop(parameter, None)
            if (
                theirs is None
                and parameter == "bias"
                and layout.without_biases
                and name != HEAD
                and name in theirs_by_layer
            ):
                values.append((variable, np.zeros(variable.shape, "float32")))
                report.zeros.append(f"{name}.bias")
                continue
            if theirs is None:
                missing.append(f"{parameter} of {name}")
                continue
            array = _converted(weights[theirs], parameter, layer, network)
            if array is None or array.shape != tuple(variable.shape):
                wrong.append(
                    f"{theirs} of shape {weights[theirs].shape}, which does not fit "
                    f"{tuple(variable.shape)} of {name}"
                )
                continue
            if array is not weights[theirs]:
                report.reshaped[theirs] = (weights[theirs].shape, array.shape)
            report.renamed[theirs] = f"{name}.{variable.name}"
            values.append((variable, array))
    left = [
        theirs
        for parameters in theirs_by_layer.values()
        for theirs in parameters.values()
    ]
    for problem, names in (
        ("lacks", missing),
        ("has", wrong),
        ("has no place for", left),
    ):
        if names:
            raise MismatchError(f"it {problem} {listed(names)}")
    broken = [
        theirs for theirs in report.renamed if not np.isfinite(weights[theirs]).all()
    ]
    if broken:
        raise MismatchError(
            f"it has numbers that are NaN or infinite in {listed(broken)}"
        )
    negative = [
        theirs
        for theirs in report.renamed
        if theirs.endswith(".running_var") and (weights[theirs] < 0.0).any()
    ]
    if negative:
        raise MismatchError(f"it has variances below 0 in {listed(negative)}")
    return values


def _layer(name, names, unused):
    """Our layer and the parameter for the name of a weight; `("", reason)` for one that
    is not used; `None` for neither."""
    layer, _, parameter = name.rpartition(".")
    if parameter not in (*PARAMETERS, COUNTER):
        layer, parameter = name, "weight"
    reason = unused.find(layer)
    if reason is not None:
        return "", reason
    ours = names.find(layer)
    if ours is None:
        return None
    if parameter == COUNTER:
        return "", "it counts batches, which inference does not need"
    return ours, parameter


def _by_layer(weights, layout, own, report, left_out):
    """For each of our layers the authors' names of its weights, by parameter."""
    names, unused = Table(layout.names), Table(layout.unused)
    theirs_by_layer: dict[str, dict[str, str]] = {}
    left = []
    for theirs in weights:
        # The layout is one that has a place for each, see `strangers`.
        layer, parameter = _layer(theirs, names, unused)
        if layer == "":
            report.unused[theirs] = parameter
        elif layer in left_out:
            report.unused[theirs] = left_out[layer]
        else:
            parameters = theirs_by_layer.setdefault(layer, {})
            if layer not in own or parameter in parameters:
                left.append(theirs)
            parameters[parameter] = theirs
    if left:
        raise MismatchError(f"it has no place for {listed(left)}")
    return theirs_by_layer


def _converted(array, parameter, layer, network):
    """A weight in the layout of Keras, or `None` if it cannot be one of the layer."""
    if not np.issubdtype(array.dtype, np.floating):
        return None
    if parameter != "weight" or isinstance(layer, layers.BatchNormalization):
        return array
    if isinstance(layer, FiringRateScale):
        # One number for each head, between axes of length 1.
        return array.reshape(-1)
    if isinstance(layer, layers.DepthwiseConv2D):
        # A factor for each channel is a kernel of one pixel.
        array = array.reshape(-1, 1, 1, 1) if array.ndim == 1 else array
        return array.transpose(2, 3, 0, 1) if array.ndim == 4 else None
    if array.ndim < 2 or array.ndim > 4:
        return None
    # PyTorch has dense layers on channels as layers, or as convolutions of one pixel
    # with one or two axes.
    array = array.reshape(array.shape + (1,) * (4 - array.ndim))
    if isinstance(layer, layers.Conv2D):
        return array.transpose(2, 3, 1, 0)
    if array.shape[2:] != (1, 1):
        return None
    return _in_order(array[:, :, 0, 0].T, layer, network)


def _in_order(kernel, layer, network):
    """The kernel of a dense layer on a flattened image, whose channels come first in
    PyTorch and last in Keras."""
    image = flattened_image(layer, network)
    if image is None:
        return kernel
    channels, *sides = image
    if len(kernel) != channels * np.prod(sides):
        return None
    return (
        kernel.reshape(channels, *sides, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
    )


def flattened_image(layer, network):
    """The channels, height and width of the image that is flattened before a layer, or
    `None` if none is."""
    flattened = [
        flatten
        for flatten in network.layers
        if isinstance(flatten, layers.Flatten) and flatten.output is layer.input
    ]
    if not flattened:
        return None
    image = flattened[0].input.shape[1:]
    if channel_axis() == 1:
        return image
    return (image[-1], *image[:-1])

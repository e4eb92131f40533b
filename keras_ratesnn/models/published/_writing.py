"""Finds the authors' names and shapes of the weights of a network of ours."""

import inspect
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.names import listed
from keras_ratesnn.layers import Neuron
from keras_ratesnn.layers.firing_rate_scale import FiringRateScale
from keras_ratesnn.models.published._filling import (
    COUNTER,
    PARAMETERS,
    MismatchError,
    flattened_image,
)
from keras_ratesnn.models.published._layouts import UnknownSizesError
from keras_ratesnn.models.published._names import Table, without_containers


def stored(network, networks):
    """`(place, weights)`: the key at the top level of a file, and a dict of the
    authors' names to arrays.

    Args:
        network: Functional model.
        networks: Dict of architectures to lists of `Reader`s.

    Raises:
        MismatchError: If it is none of these networks.
    """
    arrays = {
        layer.name: _arrays(layer, network) for layer in network.layers if layer.weights
    }
    fitting, reasons = [], []
    for architecture, readers in networks.items():
        for reader in readers:
            for names in reader.tables:
                try:
                    theirs = _names(arrays, names)
                    further = reader.not_run(network) if reader.not_run else {}
                    weights = _by_name(arrays, theirs) | further
                    layout = _layout(network, reader, names, weights)
                    fitting.append((theirs, layout, further))
                except _OtherNetwork as other:
                    reasons.append((other.distance, f"as {architecture} {other}"))
    if not fitting:
        raise MismatchError(min(reasons, key=lambda reason: reason[0])[1])
    told = [fit for fit in fitting if fit[1].told_by_names] or fitting
    theirs, layout, further = next(
        (fit for fit in told if _has_neurons_of(network, fit[1])), told[0]
    )
    weights = {**_formatted(network, arrays, theirs, layout), **further}
    return layout.place, {
        f"{layout.prefix}{name}": array for name, array in weights.items()
    }


class _OtherNetwork(Exception):
    """A network is not the one of a table.

    The message is the reason, and `distance` how far it is from it: users are told the
    reason of the nearest table.
    """

    def __init__(self, reason, distance):
        super().__init__(reason)
        self.distance = distance


def _arrays(layer, network):
    """The weights of a layer by PyTorch's names, in its layout; kernels of one pixel
    have as many axes as ours."""
    arrays = [
        keras.ops.convert_to_numpy(variable).astype("float32", copy=False)
        for variable in layer.weights
    ]
    if isinstance(layer, FiringRateScale):
        # The authors' name of the layer is that of its only weight.
        return {"": arrays[0].reshape(1, 1, -1, 1, 1)}
    weights = dict(zip(PARAMETERS, arrays, strict=False))
    kernel = weights["weight"]
    if isinstance(layer, layers.DepthwiseConv2D):
        weights["weight"] = kernel.transpose(2, 3, 0, 1)
    elif kernel.ndim == 4:
        weights["weight"] = kernel.transpose(3, 2, 0, 1)
    elif kernel.ndim == 2:
        weights["weight"] = _in_order(kernel, layer, network).T
    return weights


def _in_order(kernel, layer, network):
    """The kernel of a dense layer on a flattened image, with channels first."""
    image = flattened_image(layer, network)
    if image is None:
        return kernel
    channels, *sides = image
    return (
        kernel.reshape(*sides, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
    )


def _names(arrays, names):
    """The authors' names of our layers."""
    table = Table({ours: theirs for theirs, ours in names.items()})
    theirs_by_layer = {ours: table.find(ours) for ours in arrays}
    left = [ours for ours, theirs in theirs_by_layer.items() if theirs is None]
    if left:
        raise _OtherNetwork(f"there is no name for {listed(left)}", 3 + len(left))
    return theirs_by_layer


def _by_name(arrays, names):
    weights = {}
    for ours, parameters in arrays.items():
        theirs = without_containers(names[ours])
        for parameter, array in parameters.items():
            weights[f"{theirs}.{parameter}".removesuffix(".")] = array
    return weights


def _layout(network, reader, names, weights):
    """The `Layout` of a network, if it is that of a table."""
    try:
        layout = reader.layout(weights)
    except UnknownSizesError as error:
        raise _OtherNetwork(str(error), 2) from None
    except KeyError as error:
        raise _OtherNetwork(f"it lacks {error}", 2) from None
    except IndexError:
        raise _OtherNetwork("its layers have other weights", 2) from None
    if layout is None or layout.names != names:
        raise _OtherNetwork("its layers are others", 3)
    builder = layout.builder
    chosen = {**layout.told, "input_shape": network.input_shape[1:]}
    if "heads" in inspect.signature(builder).parameters:
        # Weights do not depend on `heads`, whose default may not fit this network.
        chosen.setdefault("heads", 1)
    try:
        with keras_internals.without_values():
            built = builder(**chosen).network
    # The names may be those of another edition, which needs other sizes.
    except ValueError as error:
        raise _OtherNetwork(str(error), 1) from None
    if _signature(built) != _signature(network):
        raise _OtherNetwork(f"its layers are not those of {builder.__name__}", 0)
    return layout


def _signature(network):
    """The neurons, and the layers with weights, with their shapes."""
    facts: dict[str, Any] = {}
    for layer in network.layers:
        if isinstance(layer, Neuron):
            facts[layer.name] = None
        elif layer.weights:
            shapes = [tuple(weight.shape) for weight in layer.weights]
            facts[layer.name] = type(layer), shapes
    return facts


def _has_neurons_of(network, layout):
    neuron, _ = layout.assumed["neuron"]
    first = next(layer for layer in network.layers if isinstance(layer, Neuron))
    return neuron is not None and type(neuron().cell) is type(first.cell)


def _formatted(network, arrays, names, layout):
    """The weights that the authors run, as they have them, with those that count
    batches."""
    weights = {}
    arrays = _without_biases(network, arrays) if layout.without_biases else arrays
    for ours, parameters in arrays.items():
        theirs, layer = names[ours], network.get_layer(ours)
        parts = theirs.split(".")
        axes = next((layout.axes[part] for part in layout.axes if part in parts), None)
        normalizes = isinstance(layer, layers.BatchNormalization)
        for parameter, array in parameters.items():
            if parameter == "weight" and not normalizes and axes is not None:
                shape = (*array.shape[:2], *[1] * (axes - 2)) if axes > 1 else -1
                array = array.reshape(shape)
            has_own_name = parameter and axes != 1
            weights[f"{theirs}.{parameter}" if has_own_name else theirs] = array
        if normalizes:
            weights[f"{theirs}.{COUNTER}"] = np.zeros((), "int64")
    return weights


def _without_biases(network, arrays):
    """The weights without biases of convolutions, which the means of the normalisation
    after them take."""
    arrays = {name: dict(parameters) for name, parameters in arrays.items()}
    normalizations = [
        layer
        for layer in network.layers
        if isinstance(layer, layers.BatchNormalization)
    ]
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D):
            bias = arrays[layer.name].pop("bias")
            for after in normalizations:
                if after.input is layer.output:
                    arrays[after.name]["running_mean"] = (
                        arrays[after.name]["running_mean"] - bias
                    )
    return arrays

"""Copies weights between networks by layer names, and replaces last layers for another
number of classes."""

import warnings

import keras

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.names import listed
from keras_ratesnn.layers import Neuron

GRADIENT_SETTINGS = ("surrogate", "detach_reset")
"""Settings of neurons that may differ, because they do not affect the outputs."""


def copy_weights(source, target, head, origin, advice, stacklevel, optional=()):
    """Copies the weights of all layers.

    Args:
        source: Functional or Sequential model.
        target: Functional or Sequential model with the same layer names.
        head: Name of the last layer. If its number of classes differs, it keeps its new
            weights, with a warning.
        origin: String, the name of the source in error messages.
        advice: String, the advice in error messages.
        stacklevel: Integer, how many calls up the user's is, which a warning shows.
        optional: Names of layers that may be missing in a target without `head`.

    Raises:
        ValueError: If layers, shapes of weights or configurations of neurons differ.
    """
    sources, targets = _layers(source), _layers(target)
    absent = [name for name in targets if name not in sources]
    left = [
        name
        for name in sources
        if name not in targets and (head in targets or name not in optional)
    ]
    if absent or left:
        problems = []
        if absent:
            problems.append(f"the layers {listed(absent)} are missing")
        if left:
            problems.append(f"the layers {listed(left)} are unexpected")
        raise ValueError(
            f"{origin} belongs to another network: {'; '.join(problems)}. {advice}"
        )

    for name, layer in targets.items():
        there, here = _shapes(sources[name]), _shapes(layer)
        if name == head and there != here and _sizes(there) == _sizes(here):
            warnings.warn(
                f"{origin} is for {there[0][-1]} classes, not {here[0][-1]}: the last "
                f"layer, {name!r}, starts with new weights. Train it before you "
                "predict.",
                stacklevel=stacklevel,
            )
            continue
        _compare(name, "weights of shapes", there, here, origin, advice)
        _compare(
            name, "neurons", _neurons(sources[name]), _neurons(layer), origin, advice
        )
        layer.set_weights(sources[name].get_weights())


def with_classes(network, classes, origin):
    """A copy of the network with a new last layer if its number of classes differs;
    else the network itself.

    Raises:
        ValueError: If the last layer is not a `Dense`.
    """
    path, head = _last_layer(network)
    if not isinstance(head, keras.layers.Dense):
        raise ValueError(
            f"`classes` must be None here: {origin} ends in {head.name!r}, a "
            f"{type(head).__name__}, not in a Dense layer. Received: classes={classes}."
        )
    if head.units == classes:
        return network

    def clone(layer):
        config = layer.get_config()
        return type(layer).from_config(
            {**config, "units": classes} if layer is head else config
        )

    copy = keras.models.clone_model(network, clone_function=clone, recursive=True)
    copy_weights(network, copy, path, origin, advice="", stacklevel=4)
    return copy


def _layers(network, prefix=""):
    """The layers that have weights or are neurons, including those of nested models, by
    their paths."""
    layers = {}
    for layer in network.layers:
        if keras_internals.is_graph(layer):
            layers.update(_layers(layer, f"{prefix}{layer.name}/"))
        elif layer.weights or isinstance(layer, Neuron):
            layers[f"{prefix}{layer.name}"] = layer
    return layers


def _last_layer(network, prefix=""):
    """The path of the last layer, and the layer. Keras sorts the layers of a model by
    distance from the output."""
    last = network.layers[-1]
    path = f"{prefix}{last.name}"
    return (
        _last_layer(last, f"{path}/")
        if keras_internals.is_graph(last)
        else (path, last)
    )


def _shapes(layer):
    return [tuple(variable.shape) for variable in layer.weights]


def _sizes(shapes):
    """Shapes without the number of classes."""
    return [shape[:-1] for shape in shapes]


def _neurons(layer):
    """The cell class and the settings of a neuron layer that affect its output; `None`
    for other layers."""
    if not isinstance(layer, Neuron):
        return None
    apart = ("name", "trainable", "dtype", *GRADIENT_SETTINGS)
    return type(layer.cell).__name__, {
        key: value for key, value in layer.cell.get_config().items() if key not in apart
    }


def _compare(name, what, there, here, origin, advice):
    if there != here:
        raise ValueError(
            f"{origin} belongs to another network: layer {name!r} has {what} {there} "
            f"there and {here} here. {advice}"
        )

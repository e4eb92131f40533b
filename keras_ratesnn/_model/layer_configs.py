"""Configs of layers whose `get_config` returns more than their constructors take, and
of layers that cannot be loaded."""

import collections
import inspect
import warnings

import keras

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.names import listed


def operation_from_config(cls, config):
    """An operation of a class from a config, without what its constructor does not
    take."""
    try:
        return cls.from_config(config)
    except TypeError:
        known = {name: value for name, value in config.items() if name in _names(cls)}
        if known == config:
            raise
        return cls.from_config(known)


def serialized(network):
    """The serialized form of a Functional or Sequential model, from which it can be
    made again."""
    derived = {
        keras.saving.get_registered_name(cls): names for cls, names in _derived(network)
    }

    def without(config):
        names = derived.get(config.get("registered_name"))
        if names is None:
            return config
        # Layers of a graph are built when they are called. From a file their `build`
        # would get a list.
        attributes = {
            key: value for key, value in config.items() if key != "build_config"
        }
        return {
            **attributes,
            "config": {
                key: value
                for key, value in config["config"].items()
                if key not in names
            },
        }

    return tree.map_dicts(without, keras.saving.serialize_keras_object(network))


def warn_of_shared(*models):
    """Warns of layers that several graphs in models share: from a file Keras makes one
    for each, and has weights for one."""
    layers = [
        layer for model in models for layer in keras_internals.with_sublayers(model)
    ]
    graphs = {
        keras_internals.functional_of(layer)
        for layer in layers
        if keras_internals.is_graph(layer)
    } - {None}
    counts = collections.Counter(
        layer for graph in graphs for layer in graph.layers if layer.weights
    )
    if shared := sorted(layer.name for layer, count in counts.items() if count > 1):
        warnings.warn(
            "keras.saving.load_model will not load this file: nested models share "
            f"{listed(shared)}, of which Keras would make one for each. To load the "
            "weights, make the model again by the same code, and call "
            "model.load_weights(file).",
            stacklevel=3,
        )


def is_of_others(operation):
    """Whether the class of an operation is neither Keras' nor of this library."""
    return type(operation).__module__.split(".")[0] not in ("keras", "keras_ratesnn")


def _names(cls):
    return (*inspect.signature(cls.__init__).parameters, "name", "trainable", "dtype")


def _derived(model):
    """Pairs of the classes of layers of other libraries and the names in their configs
    that their constructors do not take."""
    for operation in _graph.as_graph(model).operations:
        if keras_internals.is_graph(operation):
            yield from _derived(operation)
        elif isinstance(operation, keras.Layer) and is_of_others(operation):
            cls, config = type(operation), operation.get_config()
            derived = config.keys() - set(_names(cls))
            yield cls, derived if derived and not _takes(cls, config) else set()


def _takes(cls, config):
    try:
        cls.from_config(dict(config))
    except TypeError:
        return False
    return True

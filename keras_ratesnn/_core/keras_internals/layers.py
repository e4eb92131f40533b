"""What layers are made of: sublayers, state, attributes, hooks."""

import keras

from keras_ratesnn._core.keras_internals.graph import is_graph
from keras_ratesnn._core.keras_internals.imported import (
    TrackedDict,
    TrackedList,
    TrackedSet,
)

# With a dtype, since Keras would fix its default otherwise.
ATTRIBUTES_OF_EVERY_LAYER = frozenset(
    vars(keras.layers.Layer(name="any", dtype="float32"))
)
"""Names of the attributes that any layer has; in a layer without settings they affect
nothing that is computed."""

TRACKED_CONTAINERS = TrackedDict, TrackedList, TrackedSet
"""The types in which a layer keeps the containers that are its attributes."""


def with_sublayers(layer):
    """A layer and all its sublayers."""
    return layer._flatten_layers()


def layers_inside(model):
    """All layers of a model, also inside layers, except models that are graphs: their
    properties are those of their layers."""
    return [layer for layer in with_sublayers(model) if not is_graph(layer)]


def own_state(layer):
    """The variables and random generators of a layer that do not belong to its
    sublayers."""
    return [
        *layer._trainable_variables,
        *layer._non_trainable_variables,
        *layer._seed_generators,
    ]


def hooks_of(layer):
    """The collections of functions that run before or after the calls of a layer, on
    PyTorch."""
    all_hooks = (
        getattr(layer, name, None)
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    )
    return [hooks for hooks in all_hooks if hooks is not None]


def is_rematerialized(model):
    """Whether a layer of a model was made in a `keras.RematScope`, which Keras says
    nowhere else."""
    return any(layer._remat_mode is not None for layer in with_sublayers(model))

"""The parts of layers: sublayers and state."""

from keras_ratesnn._core.keras_internals.graph import is_graph


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


def is_rematerialized(model):
    """Whether a layer of a model was made in a `keras.RematScope`, which Keras says
    nowhere else."""
    return any(layer._remat_mode is not None for layer in with_sublayers(model))

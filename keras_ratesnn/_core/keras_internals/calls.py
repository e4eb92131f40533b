"""Calls of layers: the `training` that reaches them, their inputs, and calls that leave
a layer as it was."""

import contextlib

import keras
from keras import ops

from keras_ratesnn._core.keras_internals.imported import (
    functional,
    get_global_attribute,
    get_stateless_scope,
)
from keras_ratesnn._core.keras_internals.layers import with_sublayers
from keras_ratesnn._core.keras_internals.scopes import Aside

# Until Keras 3.15 a Functional model passes its own `training` to each layer, whatever
# the call in the graph was given.
_MODEL_DECIDES_TRAINING = hasattr(functional, "operation_fn")


def takes_training(operation):
    """Whether the operation accepts Keras' `training` argument: layers do, bare
    operations do not."""
    return "training" in getattr(operation, "_call_context_args", ())


def training_in_graph(kwargs):
    """The `training` that a call in the graph was given, if it overrides the model's
    own, as it does since Keras 3.16."""
    return None if _MODEL_DECIDES_TRAINING else kwargs.get("training")


@contextlib.contextmanager
def calling(layer, training):
    """A context in which layers take over `training` if they are called without it, as
    in a call of an outer layer."""
    layer._get_call_context().set_value("training", training)
    try:
        yield
    finally:
        layer._maybe_reset_call_context()


def in_call():
    """Whether a layer is being called, also by `stateless_call`, which notes it
    nowhere."""
    is_noted = get_global_attribute("current_call_ctx") is not None
    return is_noted or get_stateless_scope() is not None


def is_outermost(layer):
    """Whether the call of a layer that runs now is not part of the call of another
    one."""
    return layer._get_call_context().entry_layer is layer


def take_inputs_unchanged(model):
    """Makes Keras pass inputs to a model's `call` as they are, as it does for a
    Functional model.

    It would cast those of any other model to half precision: images of 8 bits, or
    labels in them, are then rounded.
    """
    model._convert_input_args = False
    model._allow_non_tensor_positional_args = True


def call_aside(operation, args, kwargs):
    """Calls an operation and returns `(outputs, losses)`, where losses added during the
    call are not stored in the layer.

    Activity regularisation is not included. The layer itself is not changed, so other
    threads can use it.
    """
    if not isinstance(operation, keras.Layer):
        return operation(*args, **kwargs), []
    with Aside() as scope:
        outputs = operation(*args, **kwargs)
    losses = scope.losses
    if losses:
        # Keras identifies the losses of a layer by object ids, which later losses may
        # reuse (docs/upstream.md, loses losses).
        for layer in with_sublayers(operation):
            layer._loss_ids.difference_update(map(id, losses))
        if operation.activity_regularizer is not None:
            # Its losses come last, one for each output.
            losses = losses[
                : len(losses) - sum(map(ops.is_tensor, keras.tree.flatten(outputs)))
            ]
    return outputs, losses

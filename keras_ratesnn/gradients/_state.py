"""The state of an operation that is evaluated more often than once for a step."""

import contextlib

import keras

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import backend, keras_internals


def kept(call, seeds=()):
    """A context in which a call leaves the variables of its operation as they are: what it assigns ends with the context.

    Args:
        call: `Call`.
        seeds: The states of its random generators inside the context. Defaults to `()`: the current ones.
    """
    operation = call.operation
    has_state = not call.kind.function_of_tensors and isinstance(operation, keras.layers.Layer)
    variables = operation.variables if has_state else ()
    if variables and backend.loses_replaced_weights(operation):
        variables = [variable for variable in variables if not variable.trainable]
    if not variables:
        return contextlib.nullcontext()
    values = [*zip(variables, keras_internals.values_of(variables), strict=True)]
    values += zip(layer_kinds.seeds_of(operation) if seeds else (), seeds, strict=True)
    return keras_internals.Replaced(values, backend.assigned_weight)

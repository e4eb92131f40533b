"""The dependencies of a call of an operation besides its inputs: random numbers, the
time step, masks."""

import functools
import inspect
import weakref
from typing import Any

import keras

from keras_ratesnn._core import keras_internals
from keras_ratesnn.layer_kinds.lookup import kind_of

_seeds: weakref.WeakKeyDictionary[keras.Operation, tuple[Any, ...]] = (
    weakref.WeakKeyDictionary()
)


def seeds_of(operation: keras.Operation) -> tuple[Any, ...]:
    """The state variables of the random generators of an operation and its sublayers: a
    tuple."""
    if operation not in _seeds:
        is_layer = isinstance(operation, keras.layers.Layer)
        seeds = keras_internals.seed_states(operation) if is_layer else ()
        _seeds[operation] = seeds
    return _seeds[operation]


def is_random(operation: keras.Operation, training: bool) -> bool:
    """Whether a call of the operation may draw random numbers; Keras' own layers do so
    only in training."""
    draws_now = training or not type(operation).__module__.startswith("keras.")
    return draws_now and bool(seeds_of(operation))


@functools.cache
def wants_time_step(operation_class: type) -> bool:
    """Whether a layer's `call` takes the time step: `call(inputs, time_step=None)`."""
    call = getattr(operation_class, "call", None)
    return call is not None and "time_step" in inspect.signature(call).parameters


def may_use_masks(operation: keras.Operation) -> bool:
    """Whether the outputs of an operation may depend on the Keras masks of its
    inputs."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    kind = kind_of(operation)
    takes_mask = _takes_mask(type(operation))  # type: ignore[arg-type]  # A class can be hashed.
    return takes_mask or not (kind.function_of_tensors or kind.activation)


@functools.cache
def _takes_mask(operation_class: type) -> bool:
    """Whether a layer's `call` takes a mask: an argument that is named so, as Keras
    wants it."""
    call = getattr(operation_class, "call", None)
    names = () if call is None else inspect.signature(call).parameters
    return any(name == "mask" or name.endswith("_mask") for name in names)

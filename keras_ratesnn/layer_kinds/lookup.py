"""Finds the facts of a layer class: its own, or those in the tables of Keras' layers
and operations."""

import dataclasses
import functools
from typing import TypeVar

import keras

from keras_ratesnn._core import inheritance, normalization
from keras_ratesnn.layer_kinds.keras_layers import kind_of_node, table
from keras_ratesnn.layer_kinds.kind import OPERATION, BatchStatistics, LayerKind

_LayerClass = TypeVar("_LayerClass", bound=type)

_ANY = LayerKind()
_RENORMALIZATION = BatchStatistics(
    normalization.renormalize, scale_and_shift=normalization.scale_and_shift
)


def affine(layer_class: _LayerClass) -> _LayerClass:
    """Marks a custom layer class as affine in its input: `layer(x) = A x + b` for some
    `A` and `b`.

    Short for `layer_kind = LayerKind(affine=True)` in the class, see `LayerKind`.
    Subclasses that override anything must be marked themselves. Keras' own affine
    layers (Dense, convolutions, average pooling, padding, reshapes, Add, Concatenate,
    ...) are already marked.

    Example:

    >>> @affine
    ... class Scale(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(
    ...             shape=(input_shape[-1],), initializer="ones"
    ...         )
    ...
    ...     def call(self, inputs):
    ...         return inputs * self.scale

    Args:
        layer_class: A subclass of `keras.layers.Layer`.

    Returns:
        The class, so that `affine` can be used as a decorator.

    Raises:
        TypeError: If `layer_class` is not a layer class.
    """
    if not (
        isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)
    ):
        raise TypeError(
            "`layer_class` must be a subclass of keras.layers.Layer. Received: "
            f"layer_class={layer_class!r}. Mark the class, not an instance of it."
        )
    layer_class.layer_kind = LayerKind(affine=True)  # type: ignore[attr-defined]  # Keras layers have no types.
    kind_of_class.cache_clear()
    return layer_class


def kind_of(operation: keras.Operation) -> LayerKind:
    """The `LayerKind` of a Keras operation: a layer, or a node made by `keras.ops`."""
    kind = kind_of_class(type(operation))  # type: ignore[arg-type]  # A class can be hashed.
    # A layer with an activation, such as `Dense(10, activation="relu")`, is not affine.
    if kind.affine and getattr(operation, "activation", None) not in (
        None,
        keras.activations.linear,
    ):
        return dataclasses.replace(kind, affine=False)
    # Batch renormalisation also uses running statistics: another normalisation.
    if kind.normalization is not None and getattr(operation, "renorm", False):
        return dataclasses.replace(kind, normalization=_RENORMALIZATION)
    return kind


@functools.cache
def kind_of_class(operation_class: type) -> LayerKind:
    """The `LayerKind` of a class, for classes with the same computation; `kind_of` also
    considers an instance's activation."""
    for base in operation_class.__mro__:
        kind = vars(base).get("layer_kind") or table().get(base) or kind_of_node(base)
        if kind is not None:
            # A subclass of a neuron is still a neuron; other facts do not hold for a
            # subclass that overrides anything.
            if kind.role == OPERATION and inheritance.overrides_computation(
                operation_class, base
            ):
                return _ANY
            return kind
    return _ANY

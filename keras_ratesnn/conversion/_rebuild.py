"""Copies a Keras model, with other operations instead of some of its own."""

import dataclasses
import textwrap
from typing import Any

import keras
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals
from keras_ratesnn._model import layer_configs


@dataclasses.dataclass(frozen=True)
class Replacement:
    """The replacement of an operation.

    Args:
        config: Dict, what changes in its config; `None` if the operation goes, and
            `after` is called on its first tensor.
        weights: Dict of names of its weights to arrays, those that change or are new.
            Defaults to none.
        after: List of new operations, called one after another after it or in its
            place. Defaults to none.
        cls: Class of the copy, which has the same weights. Defaults to `None`, that of
            the operation.
    """

    config: dict[str, Any] | None
    weights: dict[str, Any] = dataclasses.field(default_factory=dict)
    after: list[keras.Operation] = dataclasses.field(default_factory=list)
    cls: type | None = None


_COPY = Replacement({})


class Rebuild:
    """Copies a model with its weights and nested models, and replaces some operations.

    Args:
        replacements: Dict of operations to `Replacement`.
        inside: Dict of layers to Functional models that take their place, see
            `keras_ratesnn._graph.whole_of`. Defaults to none.
    """

    def __init__(self, replacements, inside=None):
        self.replacements = replacements
        self.inside = inside or {}
        self.copies = {}

    def run(self, model):
        copy = self._model(model)
        self._copy_weights(self.copies)
        return copy

    def _copy_weights(self, operations):
        for operation in operations:
            its_copy = self.copies[operation]
            if isinstance(
                its_copy, keras.layers.Layer
            ) and not keras_internals.is_graph(its_copy):
                try:
                    its_copy.set_weights(self._weights(operation, its_copy))
                except ValueError as error:
                    raise _not_made_again(operation, error) from error
                freeze_like(operation, its_copy)

    def _model(self, model):
        copy = (
            self._sequential(model)
            if isinstance(model, keras.Sequential)
            else self._functional(model)
        )
        if not model.trainable:
            copy.trainable = False
        return copy

    def _sequential(self, model):
        inputs = input_like(keras_internals.functional_of(model).inputs[0])
        return keras.Sequential(
            [inputs, *(step for layer in model.layers for step in self._steps(layer))],
            name=model.name,
        )

    def _functional(self, model):
        inputs = keras.tree.map_structure(
            input_like, keras_internals.inputs_structure(model)
        )
        outputs = keras_internals.run_through_graph(model, inputs, self._call)
        return keras.Model(inputs, outputs, name=model.name)

    def _call(self, operation):
        def call(*args, **kwargs):
            copy = self._copy(operation)
            if operation in self.inside:
                args, kwargs = (_graph.tensors_among(args, kwargs),), {}
            outputs = (
                keras.tree.flatten((args, kwargs))[0]
                if copy is None
                else copy(*args, **kwargs)
            )
            after = self._replacement(operation).after
            if (
                after
                and not isinstance(operation, keras.layers.Layer)
                and keras_internals.mask_of(outputs) is not None
            ):
                # An operation drops a mask, which neurons would heed.
                outputs = ops.copy(outputs)
            for step in after:
                outputs = step(outputs)
            return outputs

        return call

    def _steps(self, operation):
        copy = self._copy(operation)
        return [*([] if copy is None else [copy]), *self._replacement(operation).after]

    def _copy(self, operation):
        """The copy of an operation, the same in all its calls; `None` if it goes."""
        if operation not in self.copies:
            self.copies[operation] = self._new_copy(operation)
        return self.copies[operation]

    def _new_copy(self, operation):
        if operation in self.inside or keras_internals.is_graph(operation):
            return self._model(self.inside.get(operation, operation))
        replacement = self._replacement(operation)
        if replacement.config is None:
            return None
        try:
            return new_copy(operation, replacement.config, replacement.cls)
        # The code of a layer may raise anything.
        except Exception as error:
            raise _not_made_again(operation, error) from error

    def _replacement(self, operation):
        return self.replacements.get(operation, _COPY)

    def _weights(self, operation, copy):
        replacement = self._replacement(operation)
        # An argument that is a layer, such as an activation, goes with its weights,
        # unless it is one again.
        names = [
            name
            for name, value in replacement.config.items()
            if not isinstance(value, dict)
        ]
        layers = [getattr(operation, name, None) for name in names]
        gone = {
            id(weight)
            for layer in layers
            if isinstance(layer, keras.layers.Layer)
            for weight in layer.weights
        }
        values = zip(operation.weights, operation.get_weights(), strict=True)
        kept = [
            (weight.name, value) for weight, value in values if id(weight) not in gone
        ]
        if not replacement.weights:
            return [value for _, value in kept]
        # A new bias is among the weights of the copy only.
        named = {**dict(kept), **replacement.weights}
        return [named[weight.name] for weight in copy.weights]


def _not_made_again(operation, error):
    return ValueError(
        "`model` must be made of layers that can be made again from their configs. "
        f"Received: layer {operation.name!r} of class {type(operation).__name__}: "
        f"{short(error)}. Give the class a `get_config` that returns all arguments of "
        "its constructor."
    )


def short(error):
    """The class of an exception and the beginning of its message, on one line."""
    return (
        f"{type(error).__name__}: {textwrap.shorten(str(error), 160, placeholder=' …')}"
    )


def new_copy(operation, changes, cls=None):
    """A copy of an operation without its weights.

    Args:
        operation: A Keras operation.
        changes: Dict, what changes in its config.
        cls: Class of the copy. Defaults to `None`, that of the operation.
    """
    return layer_configs.operation_from_config(
        cls or type(operation), {**operation.get_config(), **changes}
    )


def freeze_like(layer, copy):
    """Freezes the layers inside the copy of a layer that are frozen inside the layer;
    both have the same layers."""
    pairs = zip(
        keras_internals.with_sublayers(layer),
        keras_internals.with_sublayers(copy),
        strict=False,
    )
    for inside, its_copy in pairs:
        if type(inside) is type(its_copy) and not inside.trainable:
            its_copy.trainable = False


def input_like(tensor):
    """A new input of a network, like the symbolic input of another."""
    # The tensor of an input without a name has a number, which is not to become a name.
    name = tensor.name if tensor.name == keras_internals.name_of_input(tensor) else None
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)

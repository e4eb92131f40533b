"""The variables of a model, collected only where they have changed."""

import contextlib
import contextvars
import functools
import itertools
import operator
from typing import Any

import keras

from keras_ratesnn._core.contexts import setting
from keras_ratesnn._core.keras_internals.imported import get_stateless_scope
from keras_ratesnn._core.keras_internals.losses import forget_losses
from keras_ratesnn._core.keras_internals.state import torch_parameters, values_of

_checked = contextvars.ContextVar("keras_ratesnn_checked_collection", default=None)
"""The collection of the model whose step runs, where it has been looked through."""


def collected(model):
    """A context for a step of a model, whose layers and variables are looked through
    once, at its beginning.

    Layers that are not built yet may make variables in the step, and are looked at each
    time.
    """
    if not isinstance(model, CollectsVariablesOnce):
        return contextlib.nullcontext()
    collection = model._collection()
    stays = collection.is_complete and all(layer.built for layer in collection.layers)
    return setting(_checked, collection if stays else None)


class CollectsVariablesOnce:
    """A mixin for models whose layers, variables, metrics and losses are collected only
    where they have changed.

    Keras walks through all layers a dozen times in each training step, and on PyTorch
    collects the variables anew: more calls of Python functions than all else in the
    step of a narrow ResNet-18 that is replayed as a graph.
    """

    @property
    def variables(self) -> list[Any]:
        return [*self._collection().variables]

    @property
    def weights(self) -> list[Any]:
        return [*self._collection().weights]

    @property
    def metrics(self) -> list[Any]:
        known = self._known()
        if known is None or known.has_metrics or not self.compiled:  # type: ignore[attr-defined]
            return super().metrics  # type: ignore[misc]
        return self._get_own_metrics()  # type: ignore[attr-defined]

    @property
    def losses(self) -> list[Any]:
        known = self._known()
        if known is None or self._losses_override or get_stateless_scope() is not None:  # type: ignore[attr-defined]
            return super().losses  # type: ignore[misc]
        return [
            loss for layer in known.layers for loss in layer._losses
        ] + self._get_regularization_losses()  # type: ignore

    def _clear_losses(self):
        known, scope = self._known(), get_stateless_scope()
        if scope is not None and scope.collect_losses:
            # Keras would remove those of an earlier call in the scope, and by chance
            # others (docs/upstream.md, loses losses).
            forget_losses(self)
            return
        if known is None or scope is not None:
            super()._clear_losses()  # type: ignore[misc]
            return
        for layer in known.layers:
            if layer._losses or layer._loss_ids:
                layer._losses.clear()
                layer._loss_ids.clear()

    def _flatten_layers(self, include_self=True, recursive=True):
        known = self._known() if recursive else None
        if known is None:
            return super()._flatten_layers(include_self, recursive)  # type: ignore[misc]
        return known.layers[0 if include_self else 1 :]

    def _track_variables(self):
        collection = self._collection()
        values = values_of(collection.variables)
        known, tracked = collection.tracked
        if (
            known is None
            or known is not torch_parameters(self)
            or not all(map(operator.is_, tracked, values))
        ):
            super()._track_variables()  # type: ignore[misc]
            collection.tracked = torch_parameters(self), values

    def _collection(self):
        known = self._known()
        if known is None:
            layers = super()._flatten_layers()  # type: ignore[misc]
            variables = super().variables  # type: ignore[misc]
            known = _Collection(layers, variables, super().weights)  # type: ignore[misc]
            # Keras would take an attribute that is set in the usual way for a part of
            # the model.
            vars(self)["_collected_variables"] = known
        return known

    def _known(self):
        """The present collection, or `None` if there is none yet, or no longer."""
        collection = vars(self).get("_collected_variables")
        if collection is None or collection is _checked.get():
            return collection
        return collection if collection.is_current() else None


class _Collection:
    """The layers and variables of a model at the time of construction.

    Attributes:
        layers: List of the layers, the model first.
        variables: List of the variables.
        weights: List of the weights.
        tracked: The collection that Keras made of the variables for PyTorch, or `None`,
            and a list of their values.
        is_complete: Boolean, whether all layers keep their variables where Keras does.
        has_metrics: Boolean, whether layers may have metrics.
    """

    def __init__(self, layers, variables, weights):
        self.layers = layers
        self.variables = variables
        self.weights = weights
        self.tracked: tuple[Any, list[Any]] = (None, [])
        names = (
            "_trainable_variables",
            "_non_trainable_variables",
            "_seed_generators",
            "_metrics",
        )
        self._lists_of_layers = [layer._layers for layer in layers]
        self._lists = self._lists_of_layers + [
            getattr(layer, name) for layer in layers for name in names
        ]
        self._lengths = list(map(len, self._lists))
        # Most are empty: no need to look into these, once their lengths have been
        # compared.
        self._filled = list(filter(None, self._lists))
        self._contents = list(itertools.chain.from_iterable(self._filled))
        # A custom layer may find its variables in other places.
        self.is_complete = all(map(_finds_variables_as_keras, map(type, layers)))
        # Keras leaves out those of models, which are for their own training.
        inside = [layer for layer in layers[1:] if not isinstance(layer, keras.Model)]
        self.has_metrics = any(
            layer._metrics or type(layer).metrics is not keras.Layer.metrics
            for layer in inside
        )

    def is_current(self):
        """Whether a new collection would contain the same."""
        return (
            self.is_complete
            and list(map(len, self._lists)) == self._lengths
            and all(
                map(
                    operator.is_,
                    self._contents,
                    itertools.chain.from_iterable(self._filled),
                )
            )
            # A Sequential model gets another list when it is rebuilt.
            and all(
                map(
                    operator.is_,
                    self._lists_of_layers,
                    map(operator.attrgetter("_layers"), self.layers),
                )
            )
        )


@functools.cache
def _finds_variables_as_keras(layer_type):
    """Whether the lists of layers say all. They do for the layers of this library: what
    those add, the variables of a surrogate, does not change."""
    return all(
        _is_known(layer_type, name)
        for name in ("_flatten_layers", "variables", "weights")
    )


def _is_known(layer_type, name):
    owner = next(base for base in layer_type.__mro__ if name in vars(base))
    return owner is keras.Layer or owner.__module__.startswith("keras_ratesnn.")

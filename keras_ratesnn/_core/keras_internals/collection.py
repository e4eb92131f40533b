"""The layers and variables of a model, collected only where they have changed."""

import functools
import itertools
import operator
from typing import Any

import keras

from keras_ratesnn._core.keras_internals.state import torch_parameters, values_of


class CollectsLayersOnce:
    """A mixin for models whose layers and variables are collected only where they have changed.

    Keras walks through all layers a dozen times in each training step, and on PyTorch collects the variables anew: about 1 ms,
    which is 5 % of the step of a narrow ResNet-18 that is replayed as a graph.
    """

    def _flatten_layers(self, include_self=True, recursive=True):
        if not recursive:
            return super()._flatten_layers(include_self, recursive)  # type: ignore[misc]
        layers = self._collection().layers
        return [self, *layers] if include_self else [*layers]

    @property
    def variables(self) -> list[Any]:
        return [*self._collection().variables]

    @property
    def weights(self) -> list[Any]:
        return [*self._collection().weights]

    def _track_variables(self):
        collection = self._collection()
        values = values_of(collection.variables)
        known, tracked = collection.tracked
        if known is None or known is not torch_parameters(self) or not all(map(operator.is_, tracked, values)):
            super()._track_variables()  # type: ignore[misc]
            collection.tracked = torch_parameters(self), values

    def _collection(self):
        # Keras would take an attribute that is set in the usual way for a part of the model.
        collection = vars(self).get("_layers_and_variables")
        if collection is None or not collection.is_current():
            layers = super()._flatten_layers(include_self=False)  # type: ignore[misc]
            collection = _Collection(self, layers, super().variables, super().weights)  # type: ignore[misc]
            vars(self)["_layers_and_variables"] = collection
        return collection


class _Collection:
    """The layers and variables of a model at the time of construction.

    Attributes:
        layers: List of all sublayers.
        variables: List.
        weights: List.
        tracked: The collection that Keras made of the variables for PyTorch, or `None`, and a list of their values.
    """

    def __init__(self, model, layers, variables, weights):
        self.layers, self.variables, self.weights = layers, variables, weights
        self.tracked: tuple[Any, list[Any]] = (None, [])
        self._owners = [model, *layers]
        of_variables = ("_trainable_variables", "_non_trainable_variables", "_seed_generators")
        self._lists_of_layers = [owner._layers for owner in self._owners]
        self._lists = self._lists_of_layers + [getattr(owner, name) for owner in self._owners for name in of_variables]
        self._lengths = list(map(len, self._lists))
        # Most are empty: no need to look into these, once their lengths have been compared.
        self._filled = list(filter(None, self._lists))
        self._contents = list(itertools.chain.from_iterable(self._filled))
        # A custom layer may find its variables in other places.
        self._is_complete = all(map(_finds_variables_as_keras, map(type, layers)))

    def is_current(self):
        """Whether a new collection would contain the same."""
        return (
            self._is_complete
            and list(map(len, self._lists)) == self._lengths
            and all(map(operator.is_, self._contents, itertools.chain.from_iterable(self._filled)))
            # A Sequential model gets another list when it is rebuilt.
            and all(map(operator.is_, self._lists_of_layers, map(operator.attrgetter("_layers"), self._owners)))
        )


@functools.cache
def _finds_variables_as_keras(layer_type):
    names = ("_flatten_layers", "variables", "weights")
    return issubclass(layer_type, CollectsLayersOnce) or all(
        getattr(layer_type, name) is getattr(keras.Layer, name) for name in names
    )

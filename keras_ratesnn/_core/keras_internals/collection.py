"""The variables of a model, collected only where they have changed."""

import functools
import itertools
import operator
from typing import Any

import keras

from keras_ratesnn._core.keras_internals.layers import with_sublayers
from keras_ratesnn._core.keras_internals.state import torch_parameters, values_of


class CollectsVariablesOnce:
    """A mixin for models whose variables are collected only where they have changed.

    Keras walks through all layers a dozen times in each training step, and on PyTorch collects the variables anew: about 1 ms,
    which is 4 % of the step of a narrow ResNet-18 that is replayed as a graph.
    """

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
        collection = vars(self).get("_collected_variables")
        if collection is None or not collection.is_current():
            collection = _Collection(with_sublayers(self), super().variables, super().weights)  # type: ignore[misc]
            vars(self)["_collected_variables"] = collection
        return collection


class _Collection:
    """The variables of a model at the time of construction.

    Attributes:
        variables: List.
        weights: List.
        tracked: The collection that Keras made of the variables for PyTorch, or `None`, and a list of their values.
    """

    def __init__(self, owners, variables, weights):
        self.variables, self.weights = variables, weights
        self.tracked: tuple[Any, list[Any]] = (None, [])
        self._owners = owners
        of_variables = ("_trainable_variables", "_non_trainable_variables", "_seed_generators")
        self._lists_of_layers = [owner._layers for owner in self._owners]
        self._lists = self._lists_of_layers + [getattr(owner, name) for owner in self._owners for name in of_variables]
        self._lengths = list(map(len, self._lists))
        # Most are empty: no need to look into these, once their lengths have been compared.
        self._filled = list(filter(None, self._lists))
        self._contents = list(itertools.chain.from_iterable(self._filled))
        # A custom layer may find its variables in other places.
        self._is_complete = all(map(_finds_variables_as_keras, map(type, owners)))

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
    return issubclass(layer_type, CollectsVariablesOnce) or all(
        getattr(layer_type, name) is getattr(keras.Layer, name) for name in names
    )

"""The attributes of layers, watched for changes."""

import collections
import functools
import inspect
import itertools
import operator
import random
import re
import types
import weakref
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import keras_internals

_NUMBERS = (bool, int, float, complex, str, bytes)
_FIXED = (
    *_NUMBERS,
    type(None),
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    inspect.Signature,
    keras.Variable,
    keras.DTypePolicy,
    keras.initializers.Initializer,
    keras.constraints.Constraint,
    np.generic,
    np.dtype,
    range,
    slice,
    re.Pattern,
    types.EllipsisType,
    weakref.ref,
)
"""Types of values that do not change; variables are not settings."""

_FIXED_OF_TORCH = {("torch", name) for name in ("dtype", "device", "layout", "memory_format")}

_CONTAINERS = (dict, list, tuple, set, frozenset)
_OF_EVERY_LAYER = keras_internals.ATTRIBUTES_OF_EVERY_LAYER - {"activity_regularizer", "_modules", "_buffers"}
_DEEPEST = 8


class LayerAttributes:
    """The attributes of layers at the time of construction: settings, and objects in them.

    Args:
        layers: List of Keras layers.
        others: List of other objects with settings. Defaults to `()`.

    Attributes:
        unknown: String that names an attribute which may change without notice, or `None`.
    """

    def __init__(self, layers, others=()):
        self.unknown = None
        self._containers: list[Any] = []
        self._of_layers: list[dict[str, Any]] = []
        self._dicts: list[dict[Any, Any]] = []
        self._views: list[Any] = []
        self._tensors = []
        self._seen = set()
        for layer in layers:
            self._watch_layer(layer)
        for other in others:
            self._look_into(other, f"of {type(other).__name__}", _DEEPEST)
        self._lengths = list(map(len, self._containers))
        self._names = list(self._present_names())
        self._contents = list(self._present())

    def _watch_layer(self, layer):
        self._seen.add(id(layer))
        # Only weights are in it.
        self._seen.add(id(keras_internals.torch_parameters(layer)))
        self._watch(vars(layer))
        self._of_layers.append(vars(layer))
        for hooks in keras_internals.hooks_of(layer):
            self._watch(hooks)
            if hooks:
                self.unknown = f"layer {layer.name!r} has hooks"
        # A model that is only a graph has no settings.
        if not keras_internals.is_graph(layer):
            for name, value in vars(layer).items():
                if name not in _OF_EVERY_LAYER:
                    self._look_into(value, f"attribute {name!r} of layer {layer.name!r}", _DEEPEST)

    def unchanged(self):
        """Whether all attributes are what they were. Nearly all of it is one comparison, since this runs in every call."""
        if list(map(len, self._containers)) != self._lengths or list(self._present_names()) != self._names:
            return False
        if any(tensor._version != version for tensor, version in self._tensors):
            return False
        return all(map(operator.is_, self._contents, self._present())) or all(map(_same, self._contents, self._present()))

    def _watch(self, container):
        self._containers.append(container)
        self._views.append(_values(container))

    def _present_names(self):
        """An iterator over the names in dictionaries, and the last attribute of each layer.

        They have thousands of attributes. Python keeps these in order, so that another one is the last, or its value is.
        """
        return itertools.chain(itertools.chain.from_iterable(self._dicts), map(next, map(reversed, self._of_layers)))

    def _present(self):
        """An iterator over all that is in the containers now, without the names in dictionaries."""
        return itertools.chain.from_iterable(self._views)

    def _look_into(self, value, place, depth):
        if id(value) in self._seen or isinstance(value, _FIXED):
            return
        self._seen.add(id(value))
        if isinstance(value, keras.Layer):
            # Keras finds the layers of a layer, but not those inside other objects. A model may own this layer.
            if not isinstance(value, keras.Model):
                self._watch_layer(value)
        elif ops.is_tensor(value):
            # Weights are not settings; a graph that contains one as a constant is refused.
            if type(value).__name__ != "Parameter":
                self._tensors.append((value, value._version))
        elif isinstance(value, np.ndarray):
            self.unknown = f"{place} is an array"
        elif depth == 0:
            self.unknown = f"{place} is deeply nested"
        elif isinstance(value, functools.partial):
            self._look_into([value.func, value.args, value.keywords], place, depth - 1)
        elif isinstance(value, types.MethodType):
            self._look_into(value.__self__, place, depth - 1)
        elif isinstance(value, _CONTAINERS):
            if not isinstance(value, (tuple, frozenset)):
                self._watch(value)
            if isinstance(value, dict):
                self._dicts.append(value)
            for inside in list(_values(value)):
                self._look_into(inside, place, depth - 1)
        elif isinstance(value, collections.deque) or any("__slots__" in vars(base) for base in type(value).__mro__[:-1]):
            self.unknown = f"{place} is of type {type(value).__name__}"
        elif hasattr(value, "__dict__") and not isinstance(value, random.Random):
            self._look_into(vars(value), place, depth - 1)
        elif type(value) is not object and (type(value).__module__, type(value).__name__) not in _FIXED_OF_TORCH:
            # Its state cannot be seen: it may be a generator of random numbers, an iterator or a file.
            self.unknown = f"{place} is of type {type(value).__name__}"


def _values(container):
    return container.values() if isinstance(container, dict) else container


def _same(one, other):
    """Whether two settings are the same object or the same number."""
    return one is other or (type(one) is type(other) and isinstance(one, _NUMBERS) and repr(one) == repr(other))

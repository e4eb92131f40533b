"""The attributes of layers, watched for changes."""

import inspect
import operator
import types

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
    types.MethodType,
    types.ModuleType,
    inspect.Signature,
    keras.Layer,
    keras.Variable,
    keras.DTypePolicy,
    keras.initializers.Initializer,
    keras.constraints.Constraint,
)
"""Types of values that do not change. Layers are watched themselves; variables are not settings."""

_CONTAINERS = (dict, list, tuple, set, frozenset)
_OF_EVERY_LAYER = frozenset(vars(keras.layers.Layer(name="any"))) - {"activity_regularizer"}
_DEEPEST = 8


class LayerAttributes:
    """The attributes of layers at the time of construction: settings, and objects in them.

    Args:
        layers: List of Keras layers.

    Attributes:
        unknown: String that names an attribute which may change without notice, or `None`.
    """

    def __init__(self, layers):
        self.unknown = None
        self._watched = []
        self._tensors = []
        self._seen = set()
        for layer in layers:
            self._watch(vars(layer))
            for hooks in keras_internals.hooks_of(layer):
                self._watch(hooks)
                if hooks:
                    self.unknown = f"layer {layer.name!r} has hooks"
            if keras_internals.is_graph(layer):
                continue
            for name, value in vars(layer).items():
                if name not in _OF_EVERY_LAYER:
                    self._look_into(value, f"attribute {name!r} of layer {layer.name!r}", _DEEPEST)

    def unchanged(self):
        """Whether all attributes are what they were."""
        return all(_same(contents, container) for container, contents in self._watched) and all(
            tensor._version == version for tensor, version in self._tensors
        )

    def _watch(self, container):
        self._watched.append((container, list(_values(container))))

    def _look_into(self, value, place, depth):
        if isinstance(value, _FIXED) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        if ops.is_tensor(value):
            self._tensors.append((value, value._version))
        elif isinstance(value, np.ndarray):
            self.unknown = f"{place} is an array"
        elif depth == 0:
            self.unknown = f"{place} is deeply nested"
        elif isinstance(value, _CONTAINERS):
            if not isinstance(value, (tuple, frozenset)):
                self._watch(value)
            for inside in list(_values(value)):
                self._look_into(inside, place, depth - 1)
        elif hasattr(value, "__dict__"):
            self._look_into(vars(value), place, depth - 1)


def _values(container):
    return container.values() if isinstance(container, dict) else container


def _same(contents, container):
    """Whether a container still has these contents. The first comparison is fast, since this runs in every call."""
    if len(contents) != len(container):
        return False
    values = _values(container)
    return all(map(operator.is_, contents, values)) or all(
        a is b or (type(a) is type(b) and isinstance(a, _NUMBERS) and a == b) for a, b in zip(contents, values, strict=True)
    )

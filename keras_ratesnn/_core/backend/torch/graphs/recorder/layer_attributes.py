"""The attributes of layers, watched for changes."""

import collections
import functools
import inspect
import itertools
import operator
import re
import sys
import types
import weakref
from typing import Any

import keras
import numpy as np
import torch
from keras import ops

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.backend.torch.graphs import private_keras

_NUMBERS = (bool, int, float, complex, str, bytes)
_FIXED = {
    *_NUMBERS,
    types.NoneType,
    types.EllipsisType,
    types.NotImplementedType,
    types.ModuleType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    inspect.Signature,
    range,
    slice,
    re.Pattern,
    np.ufunc,
}
"""Exact types of values that do not change. A subclass may have attributes that do."""

for _code in np.typecodes["All"]:
    _FIXED.add(type(np.dtype(_code)))
    if _code not in "OV":
        _FIXED.add(np.dtype(_code).type)

_FIXED_OF_KERAS = (
    keras.Variable,
    keras.KerasTensor,
    keras.DTypePolicy,
    keras.initializers.Initializer,
)
"""Keras' own classes of objects that are not looked into. Variables are no settings,
and symbolic tensors are none either: saving a model changes them."""

_FIXED_OF_TORCH = {
    ("torch", name) for name in ("dtype", "device", "layout", "memory_format")
}

_CONTAINERS = {
    dict,
    collections.OrderedDict,
    list,
    set,
    *private_keras.TRACKED_CONTAINERS,
}
"""Exact types of containers whose whole state is what they contain."""

_PLAIN_SIZES = {
    base: type("Plain", (base,), {}).__basicsize__
    for base in (object, *_NUMBERS[1:], tuple, frozenset)
}
"""How many bytes an object has that adds only attributes in its `__dict__` to one of
these."""

_LIBRARIES = {"keras", "keras_ratesnn", "numpy", "torch", *sys.stdlib_module_names}
"""Packages whose functions and classes nobody changes."""

_ATTRIBUTES_OF_EVERY_LAYER = private_keras.ATTRIBUTES_OF_EVERY_LAYER - {
    "activity_regularizer",
    "_modules",
    "_buffers",
}
_DEEPEST = 8


class LayerAttributes:
    """The attributes of layers at the time of construction: settings, and objects in
    them.

    Args:
        layers: List of Keras layers.
        objects: List of other objects with settings. Defaults to `()`.

    Attributes:
        unknown: String that names an attribute which may change without notice, or
            `None`.
    """

    def __init__(self, layers, objects=()):
        self.unknown = None
        self._containers: list[Any] = []
        self._places: list[str] = []
        self._layer_dicts: list[dict[str, Any]] = []
        self._dicts: list[dict[Any, Any]] = []
        self._views: list[Any] = []
        self._getters: list[Any] = []
        self._tensors = []
        self._class_values: list[Any] = []
        # Objects by id, so that no other object has the same one.
        self._seen: dict[int, Any] = {}
        for layer in layers:
            self._watch_layer(layer)
        for holder in objects:
            self._look_into(holder, f"of {type(holder).__name__}", _DEEPEST)
        # After all others, which are known or not wherever else they are. What cannot
        # be seen to change in a class, or in what its methods enclose, counts as
        # constant, as global variables do.
        unknown = self.unknown
        while self._class_values:
            for value in _behind(self._class_values.pop()):
                self._look_into(value, "of a class", _DEEPEST)
        self.unknown = unknown
        self._seen.clear()
        self._lengths = list(map(len, self._containers))
        self._names = list(self._present_names())
        self._contents = list(self._present())
        self._by_place = self._present_by_place()

    def _watch_layer(self, layer):
        if id(layer) in self._seen:
            return
        self._seen[id(layer)] = layer
        # Only weights are in it.
        parameters = keras_internals.torch_parameters(layer)
        self._seen[id(parameters)] = parameters
        self._watch(vars(layer), f"of layer {layer.name!r}")
        self._watch_class(type(layer))
        self._layer_dicts.append(vars(layer))
        for hooks in private_keras.hooks_of(layer):
            self._watch(hooks, f"of the hooks of layer {layer.name!r}")
            if hooks:
                self.unknown = f"layer {layer.name!r} has hooks"
        # A model that is only a graph has no settings.
        if keras_internals.is_graph(layer):
            return
        for name, value in list(vars(layer).items()):
            if name not in _ATTRIBUTES_OF_EVERY_LAYER:
                place = f"attribute {name!r} of layer {layer.name!r}"
                self._look_into(value, place, _DEEPEST)

    @property
    def tensors(self):
        """The tensors among the attributes, a list. Their values may change without
        notice."""
        return [tensor for tensor, _ in self._tensors]

    def unchanged(self):
        """Whether all attributes are what they were. Nearly all of it is one
        comparison, since this runs in every call."""
        if list(map(len, self._containers)) != self._lengths:
            return False
        if list(self._present_names()) != self._names:
            return False
        if any(_state_of(tensor) != state for tensor, state in self._tensors):
            return False
        return all(map(operator.is_, self._contents, self._present())) or all(
            map(_same, self._contents, self._present())
        )

    def changes(self):
        """The changed attributes, a list of strings. Slow, unlike `unchanged`."""
        before, now = self._by_place, self._present_by_place()
        return [
            f"{name!r} {self._places[number]}, from {old} to {now.get((number, name))}"
            for number, name in before | now
            if not _same(old := before.get((number, name)), now.get((number, name)))
        ]

    def _present_by_place(self):
        """All that is in the containers now, by the number of the container and the
        name in it."""
        return {
            (number, name): value
            for number, container in enumerate(self._containers)
            for name, value in (
                container.items()
                if hasattr(container, "items")
                else enumerate(container)
            )
        }

    def _watch(self, container, place):
        self._containers.append(container)
        self._places.append(place)
        self._views.append(
            container if isinstance(container, (list, set)) else container.values()
        )

    def _present_names(self):
        """An iterator over the names in dictionaries, and the last attribute of each
        layer.

        Layers have thousands of attributes. Python keeps these in order, so that a new
        one is the last.
        """
        return itertools.chain(
            itertools.chain.from_iterable(self._dicts),
            map(next, map(reversed, self._layer_dicts)),
        )

    def _present(self):
        """An iterator over all that is in the containers now, without the names in
        dictionaries."""
        return itertools.chain(
            itertools.chain.from_iterable(self._views),
            map(operator.call, self._getters),
        )

    def _watch_class(self, kind):
        """Watches the attributes of a class and of its bases, and later what is inside
        them."""
        for base in kind.__mro__:
            if id(base) not in self._seen and not _is_of_library(base.__module__):
                self._seen[id(base)] = base
                self._watch(vars(base), f"of class {base.__name__!r}")
                self._class_values += [
                    value
                    for name, value in vars(base).items()
                    if not name.startswith("__")
                ]

    def _look_into(self, value, place, depth):
        kind = type(value)
        is_fixed = kind in _FIXED or (
            isinstance(value, _FIXED_OF_KERAS) and _is_of_library(kind.__module__)
        )
        if is_fixed or id(value) in self._seen:
            return
        if isinstance(value, type):
            self._watch_class(value)
            return
        if isinstance(value, keras.Layer):
            # Keras finds the layers of a layer, but not those inside other objects.
            for layer in keras_internals.with_sublayers(value):
                self._watch_layer(layer)
            return
        self._seen[id(value)] = value
        if ops.is_tensor(value):
            self._watch_tensor(value, place)
        elif isinstance(value, np.ndarray):
            self.unknown = f"{place} is an array"
        elif depth == 0:
            self.unknown = f"{place} is deeply nested"
        elif kind in _CONTAINERS:
            self._watch(value, f"in {place}")
            if hasattr(value, "__dict__"):
                # They may be given attributes.
                self._watch(vars(value), f"in {place}")
            if isinstance(value, dict):
                self._dicts.append(value)
            contents = value.values() if isinstance(value, dict) else value
            self._look_into_all(contents, place, depth)
        elif kind is types.FunctionType:
            self._watch_function(value, place, depth)
        elif kind is types.MethodType:
            self._look_into_all((value.__self__, value.__func__), place, depth)
        elif kind in (types.BuiltinFunctionType, types.MethodWrapperType):
            # A method of an object, or a function of a module.
            self._look_into(value.__self__, place, depth - 1)
        elif kind is functools.partial:
            self._look_into_all(
                (value.func, value.args, value.keywords, vars(value)), place, depth
            )
        elif kind is weakref.ref:
            # A reference would keep what it points to.
            self._getters.append(lambda: value() is None)
            self._look_into(value(), place, depth - 1)
        elif kind is types.SimpleNamespace or not _has_hidden_state(kind):
            self._watch_class(kind)
            if isinstance(value, (tuple, frozenset)):
                self._look_into_all(value, place, depth)
            if hasattr(value, "__dict__"):
                self._look_into(vars(value), place, depth - 1)
        elif (kind.__module__, kind.__name__) not in _FIXED_OF_TORCH:
            # It may be a generator of random numbers, an iterator, a file or a
            # container with attributes.
            self.unknown = f"{place} is of type {kind.__name__}"

    def _look_into_all(self, values, place, depth):
        for value in list(values):
            self._look_into(value, place, depth - 1)

    def _watch_tensor(self, tensor, place):
        # Weights are not settings; a graph that contains one is refused.
        if type(tensor).__name__ == "Parameter":
            return
        if type(tensor) is torch.Tensor:
            self._tensors.append((tensor, _state_of(tensor)))
        else:
            self.unknown = f"{place} is of type {type(tensor).__name__}"

    def _watch_function(self, function, place, depth):
        cells = function.__closure__ or ()
        if not cells and _is_of_library(function.__globals__.get("__name__")):
            return
        getters = [
            functools.partial(getattr, function, name)
            for name in ("__code__", "__defaults__", "__kwdefaults__")
        ]
        getters += [functools.partial(_content, cell) for cell in cells]
        self._getters += getters
        self._look_into_all(
            [*(get() for get in getters[1:]), vars(function)], place, depth
        )


def global_settings():
    """Dependencies of operations besides attributes and tensors, hashable: settings of
    Keras and of PyTorch."""
    return (
        keras.config.epsilon(),
        keras.config.floatx(),
        keras.config.image_data_format(),
        private_keras.autocast_dtype(),
        torch.get_default_dtype(),
        # Compiled code contains these two.
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
    )


def _state_of(tensor):
    """Properties that differ once a tensor is another one. Its values may change
    without that: a replay reads them anew."""
    return (
        tensor.data_ptr(),
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.requires_grad,
    )


def _behind(value):
    """The objects behind an attribute of a class, a list: functions behind descriptors;
    nothing where that is not known."""
    if isinstance(value, property):
        return [value.fget, value.fset]
    if isinstance(value, (staticmethod, classmethod)):
        return [value.__func__]
    if isinstance(value, functools.cached_property):
        return [value.func]
    is_descriptor = hasattr(type(value), "__get__") and not isinstance(
        value, types.FunctionType
    )
    return [] if is_descriptor else [value]


def _content(cell):
    """The value of a variable of an enclosing function, `None` if it has none."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _is_of_library(module):
    return str(module).partition(".")[0] in _LIBRARIES


def _has_hidden_state(kind):
    """Whether objects of a class may have state besides their `__dict__`, and a number,
    string or tuple that cannot change."""
    base = next(base for base in kind.__mro__ if base in _PLAIN_SIZES)
    has_dict = any("__dict__" in vars(base) for base in kind.__mro__)
    size = _PLAIN_SIZES[base] if has_dict else base.__basicsize__
    return kind.__basicsize__ > size or any(
        vars(base).get("__slots__") for base in kind.__mro__
    )


def _same(before, now):
    """Whether two settings are the same object or the same number."""
    return before is now or (
        type(before) is type(now)
        and isinstance(before, _NUMBERS)
        and repr(before) == repr(now)
    )

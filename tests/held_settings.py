"""What a layer may hold, of every kind, and how it changes. Only to be imported on
PyTorch."""

import collections
import dataclasses
import enum
import functools
import types
import weakref

import keras
import numpy as np
import torch
from keras import layers, ops


class Dict(dict):
    scale = 1.0


class Float(float):
    scale = 1.0


class Point(collections.namedtuple("Point", ["x"])):
    scale = 1.0


class Slots(float):
    __slots__ = ("scale",)


class OwnTensor(torch.Tensor):
    pass


class Limit(keras.constraints.Constraint):
    scale = 1.0


@dataclasses.dataclass
class Settings:
    scale: float = 1.0

    @property
    def doubled(self):
        return 2 * self.scale


class Number(enum.IntEnum):
    ONE = 1


def with_default(x, scale=1.0):
    return x * scale


def enclosing():
    scale = 1.0

    def inner():
        return scale

    def change(value):
        nonlocal scale
        scale = value

    inner.change = change
    return inner


def on_its_list(scales):
    return lambda: scales[0]


def hidden_model():
    inputs = keras.Input((6,))
    return types.SimpleNamespace(
        model=keras.Model(inputs, layers.Rescaling(1.0)(inputs))
    )


def scale_of(held):
    return held.scale


def set_scale(held):
    held.scale = 3.0


def called(held):
    return held()


def first(held):
    return float(held[0])


def fill(held):
    held[:] = 3.0


def fill_list(held):
    held[0] = 3.0


def fill_bytes(held):
    held[0] = 3


def fill_data(held):
    fill(held.data)


def ones():
    return torch.ones(6)


def inference_tensor():
    with torch.inference_mode():
        return torch.ones(6)


def fill_in_inference_mode(held):
    with torch.inference_mode():
        held.fill_(3.0)


def with_scale(held):
    held.scale = 1.0
    return held


def owner(**attributes):
    return type("Owner", (), attributes)


_OWNED = []


def alive():
    _OWNED.append(Settings())
    return weakref.ref(_OWNED[-1])


# Keras replaces containers that are attributes themselves.
OBJECTS = {
    "attribute of a number": lambda: Float(1.0),
    "slot of a number": lambda: with_scale(Slots()),
    "attribute of a tuple": lambda: Point(1.0),
    "constraint": Limit,
    "dataclass": Settings,
    "attribute of a member": lambda: with_scale(Number.ONE),
    "class": lambda: owner(scale=1.0),
    "attribute of a function": lambda: with_scale(lambda: None),
    "attribute of a partial": lambda: with_scale(functools.partial(abs, 1.0)),
}
TENSORS = {
    "data of a tensor": torch.exp,
    "number that a tensor has": lambda held: float(held[:1]),
    "list that a tensor has": lambda held: held.tolist()[0],
    "array that a tensor has": lambda held: float(held.numpy()[0]),
    "array of NumPy": lambda held: float(np.asarray(held)[0]),
}
HELD = {
    **{kind: (make, scale_of, set_scale) for kind, make in OBJECTS.items()},
    **{kind: (ones, read, fill_data) for kind, read in TENSORS.items()},
    "attribute of a dict": (
        lambda: Settings(Dict()),
        lambda held: held.scale.scale,
        lambda held: set_scale(held.scale),
    ),
    "attribute of a list of Keras": (
        list,
        lambda held: getattr(held, "scale", 1.0),
        set_scale,
    ),
    "inside a tuple": (
        lambda: Point([1.0]),
        lambda held: first(held.x),
        lambda held: fill_list(held.x),
    ),
    "property": (Settings, lambda held: held.doubled, set_scale),
    "member of an enumeration": (
        lambda: enum.Enum("Choice", {"ONE": Settings()}).ONE,
        lambda held: held.value.scale,
        lambda held: set_scale(held.value),
    ),
    "list of a class": (
        lambda: owner(scales=[1.0]),
        lambda held: first(held.scales),
        lambda held: fill_list(held.scales),
    ),
    "list of an enclosing function of a method": (
        lambda: owner(scale=staticmethod(on_its_list([1.0]))),
        lambda held: held.scale(),
        lambda held: fill_list(held.scale.__closure__[0].cell_contents),
    ),
    "list of a cached property": (
        lambda: owner(scale=functools.cached_property(on_its_list([1.0]))),
        lambda held: held.scale.func(),
        lambda held: fill_list(held.scale.func.__closure__[0].cell_contents),
    ),
    "method of a class": (
        lambda: owner(scale=lambda self: 1.0)(),
        lambda held: held.scale(),
        lambda held: setattr(type(held), "scale", lambda self: 3.0),
    ),
    "method of an object": (
        lambda: owner(scale=lambda self: 1.0)(),
        lambda held: held.scale(),
        lambda held: setattr(held, "scale", lambda: 3.0),
    ),
    "weak reference": (
        alive,
        lambda held: held().scale,
        lambda held: set_scale(held()),
    ),
    "end of a weak reference": (
        alive,
        lambda held: 1.0 if held() else 3.0,
        lambda held: _OWNED.remove(held()),
    ),
    "model in an object": (
        hidden_model,
        lambda held: held.model(ops.ones((1, 6))),
        lambda held: set_scale(held.model.layers[-1]),
    ),
    "variable of an enclosing function": (
        enclosing,
        called,
        lambda held: held.change(3.0),
    ),
    "list of an enclosing function": (
        lambda: on_its_list([1.0]),
        called,
        lambda held: fill_list(held.__closure__[0].cell_contents),
    ),
    "default of a function": (
        lambda: types.FunctionType(with_default.__code__, globals(), argdefs=(1.0,)),
        lambda held: held(1.0),
        lambda held: setattr(held, "__defaults__", (3.0,)),
    ),
    "list as a default": (
        lambda: lambda scales=[1.0]: scales[0],
        called,
        lambda held: fill_list(held.__defaults__[0]),
    ),
    "code of a function": (
        lambda: types.FunctionType((lambda: 1.0).__code__, globals()),
        called,
        lambda held: setattr(held, "__code__", (lambda: 3.0).__code__),
    ),
    "method of a dict": (
        lambda: {"a": 1.0}.get,
        lambda held: held("a"),
        lambda held: held.__self__.update(a=3.0),
    ),
    "keyword of a partial": (
        lambda: functools.partial(with_default, scale=1.0),
        lambda held: held(1.0),
        lambda held: held.keywords.update(scale=3.0),
    ),
    "array": (lambda: np.ones(6), first, fill),
    "array in an object": (
        lambda: Settings(np.ones(6)),
        lambda held: ops.convert_to_tensor(held.scale),
        lambda held: fill(held.scale),
    ),
    "bytes": (lambda: bytearray(b"a"), first, fill_bytes),
    "queue": (
        lambda: collections.deque([1.0]),
        first,
        lambda held: held.appendleft(3.0),
    ),
    "tensor": (ones, lambda held: held + 1.0, fill),
    "tensor of a class": (
        lambda: ones().as_subclass(OwnTensor),
        lambda held: torch.exp(held.as_subclass(torch.Tensor)),
        fill_data,
    ),
    "parameter in an object": (
        lambda: Settings(torch.nn.Parameter(ones())),
        lambda held: torch.exp(held.scale),
        lambda held: fill_data(held.scale),
    ),
    "view of a tensor": (
        lambda: torch.ones(2, 6),
        lambda held: torch.exp(held[1]),
        lambda held: fill(held[1:]),
    ),
    "other data of a tensor": (
        ones,
        torch.exp,
        lambda held: setattr(held, "data", torch.zeros(6)),
    ),
    "decision by a tensor": (
        lambda: torch.ones(()),
        lambda held: 2.0 if held < 2.0 else 1.0,
        lambda held: held.data.fill_(3.0),
    ),
    "memory of an array": (
        lambda: torch.from_numpy(np.ones(6, "float32")),
        torch.exp,
        lambda held: fill(held.numpy()),
    ),
    "memory of another library": (
        ones,
        torch.exp,
        lambda held: fill(np.from_dlpack(held)),
    ),
    "tensor of inference mode": (inference_tensor, torch.exp, fill_in_inference_mode),
}
"""For each kind: functions that make it, read a number or a tensor from it, and change
what they read."""

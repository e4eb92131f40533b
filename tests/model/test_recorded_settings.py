"""Recorded calls, which are replayed, on PyTorch: a change of any setting that they depend on takes effect."""

import collections
import dataclasses
import enum
import functools
import types
import warnings
import weakref

import keras
import numpy as np
import pytest
from helpers import BACKEND, data, double_precision, mlp, to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn._model import call_graphs

if BACKEND != "torch":
    pytest.skip("other backends compile whole functions themselves", allow_module_level=True)

import torch
from recorded_calls import assert_equal_state, graphs_of, neuron, normalization, pair, recording, train

CHANGES = {
    "weights": lambda model: model.set_weights([weight * 0.5 for weight in model.get_weights()]),
    "rate of dropout": lambda model: setattr(model.network.layers[-5], "rate", 0.6),
    "surrogate": lambda model: setattr(neuron(model).cell.surrogate, "alpha", 1.5),
    "momentum": lambda model: setattr(normalization(model), "momentum", 0.5),
    "regulariser": lambda model: setattr(neuron(model, 1).activity_regularizer, "l1", 0.5),
    "another regulariser": lambda model: setattr(neuron(model), "activity_regularizer", keras.regularizers.L2(0.1)),
    "frozen normalisation": lambda model: setattr(normalization(model), "trainable", False),
    "frozen weight": lambda model: setattr(model.get_layer("logits").bias, "trainable", False),
    "time steps": lambda model: setattr(model, "timesteps", 1),
    "gradient": lambda model: setattr(model, "gradient", "bptt"),
    "step mode": lambda model: setattr(model, "step_mode", "single"),
}


def test_a_change_of_what_was_recorded_takes_effect_at_once(monkeypatch):
    # Each graph here pays off.
    monkeypatch.setattr(call_graphs, "WORTH_RECORDING", 1)
    x, y = data(4, (6, 6, 2))
    with double_precision(), recording():
        models = pair(timesteps=2)

        def assert_training_agrees(after):
            for _ in range(3):
                losses = [model.train_on_batch(x, y) for model in models]
                assert losses[1] == pytest.approx(losses[0], rel=1e-9), after
                assert_equal_state(*models)

        assert_training_agrees(None)
        for name, change in CHANGES.items():
            before = models[1]._graphs.graphs[-1]
            for model in models:
                change(model)
            assert_training_agrees(name)
            # It is recorded again, unless only values have changed.
            assert (models[1]._graphs.graphs[-1] is before) == (name == "weights"), name


class Options(layers.Layer):
    """Settings in all kinds of places."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.plain = True
        self.options = {"a": 0.5}
        self.part = functools.partial(ops.multiply, 2.0)
        self.holder = types.SimpleNamespace(scale=1.0, layer=layers.Rescaling(1.0))
        self.method = Scale(1.0).of
        self.single = True

    def call(self, inputs):
        x = inputs * self.options.get("a", -1.0) * self.holder.scale * (2.0 if hasattr(self, "other") else 1.0)
        return self.holder.layer(self.part(self.method(x)))


class Scale:
    def __init__(self, scale):
        self.scale = scale

    def of(self, inputs):
        return inputs * self.scale


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.options.update({"b": layer.options.pop("a")}),
        lambda layer: setattr(layer.holder, "scale", 3.0),
        lambda layer: setattr(layer.holder.layer, "scale", 3.0),
        lambda layer: setattr(layer.method.__self__, "scale", 3.0),
        lambda layer: setattr(layer, "part", functools.partial(ops.multiply, 5.0)),
        lambda layer: (delattr(layer, "single"), setattr(layer, "other", True)),
        lambda layer: (delattr(layer, "plain"), setattr(layer, "other", True)),
    ],
    ids=["name in a dict", "object", "layer in an object", "bound method", "partial", "last name", "earlier name"],
)
def test_settings_are_found_wherever_they_are(change):
    def make():
        inputs = keras.Input((6,))
        return keras.Model(inputs, layers.Dense(3)(rsnn.layers.LIF()(Options(name="options")(inputs))))

    x = ops.convert_to_tensor(data()[0])
    with recording():
        models = pair(make)
        for _ in range(3):
            before = [to_numpy(model(x)) for model in models]
        assert graphs_of(models[1]) == 1
        for model in models:
            change(model.network.get_layer("options"))
        after = [to_numpy(model(x)) for model in models]
        assert np.any(after[0] != before[0])
        np.testing.assert_allclose(after[1], after[0], rtol=1e-6)


class Holds(layers.Layer):
    """Its output depends on an object, through a function."""

    shift = 0.0

    def __init__(self, held, read, **kwargs):
        super().__init__(**kwargs)
        self.held, self.read = held, read

    def call(self, inputs):
        return inputs * self.read(self.held) + self.shift


def holding(held, read):
    inputs = keras.Input((6,))
    x = rsnn.layers.LIF()(layers.Dense(6)(inputs))
    return keras.Model(inputs, layers.Dense(3)(Holds(held, read, name="holds")(x)))


class Dict(dict):
    scale = 1.0


class List(list):
    scale = 1.0


class Float(float):
    scale = 1.0


class Point(collections.namedtuple("Point", ["x"])):
    scale = 1.0


class OfClass:
    scale = 1.0


class Slots(float):
    __slots__ = ("scale",)


class Limit(keras.constraints.Constraint):
    scale = 1.0


class Start(keras.initializers.Initializer):
    scale = 1.0


@dataclasses.dataclass
class Settings:
    scale: float = 1.0

    @property
    def doubled(self):
        return 2 * self.scale


class Choice(enum.Enum):
    ONE = Settings()


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
    return types.SimpleNamespace(model=keras.Model(inputs, layers.Rescaling(1.0)(inputs)))


def set_scale(held):
    held.scale = 3.0


def fill(held):
    held[:] = 3.0


def fill_list(held):
    held[0] = 3.0


def inference_tensor():
    with torch.inference_mode():
        return torch.ones(6)


def fill_in_inference_mode(held):
    with torch.inference_mode():
        held.fill_(3.0)


def with_scale(held):
    held.scale = 1.0
    return held


_OWNED = []


def alive():
    _OWNED.append(Settings())
    return weakref.ref(_OWNED[-1])


HELD = {
    # Keras replaces containers that are attributes themselves.
    "attribute of a dict": (lambda: Settings(Dict()), lambda held: held.scale.scale, lambda held: set_scale(held.scale)),
    "attribute of a list": (lambda: Settings(List()), lambda held: held.scale.scale, lambda held: set_scale(held.scale)),
    "attribute of a list of Keras": (list, lambda held: getattr(held, "scale", 1.0), set_scale),
    "attribute of a number": (lambda: Float(1.0), lambda held: held.scale, set_scale),
    "slot of a number": (lambda: with_scale(Slots()), lambda held: held.scale, set_scale),
    "attribute of a tuple": (lambda: Point(1.0), lambda held: held.scale, set_scale),
    "inside a tuple": (lambda: Point([1.0]), lambda held: held.x[0], lambda held: fill_list(held.x)),
    "constraint": (Limit, lambda held: held.scale, set_scale),
    "initializer": (Start, lambda held: held.scale, set_scale),
    "dataclass": (Settings, lambda held: held.scale, set_scale),
    "property": (Settings, lambda held: held.doubled, set_scale),
    "member of an enumeration": (lambda: Choice.ONE, lambda held: held.value.scale, lambda held: set_scale(held.value)),
    "attribute of a member": (lambda: with_scale(Number.ONE), lambda held: held.scale, set_scale),
    "class": (lambda: OfClass, lambda held: held.scale, set_scale),
    "weak reference": (alive, lambda held: held().scale, lambda held: set_scale(held())),
    "end of a weak reference": (alive, lambda held: 1.0 if held() else 3.0, lambda held: _OWNED.remove(held())),
    "model in an object": (
        hidden_model,
        lambda held: held.model(ops.ones((1, 6))),
        lambda held: setattr(held.model.layers[-1], "scale", 3.0),
    ),
    "variable of an enclosing function": (enclosing, lambda held: held(), lambda held: held.change(3.0)),
    "list of an enclosing function": (
        lambda: on_its_list([1.0]),
        lambda held: held(),
        lambda held: fill_list(held.__closure__[0].cell_contents),
    ),
    "attribute of a function": (
        lambda: with_scale(lambda: None),
        lambda held: held.scale,
        set_scale,
    ),
    "default of a function": (
        lambda: types.FunctionType(with_default.__code__, globals(), argdefs=(1.0,)),
        lambda held: held(1.0),
        lambda held: setattr(held, "__defaults__", (3.0,)),
    ),
    "list as a default": (
        lambda: lambda scales=[1.0]: scales[0],
        lambda held: held(),
        lambda held: fill_list(held.__defaults__[0]),
    ),
    "code of a function": (
        lambda: types.FunctionType((lambda: 1.0).__code__, globals()),
        lambda held: held(),
        lambda held: setattr(held, "__code__", (lambda: 3.0).__code__),
    ),
    "method of a dict": (lambda: {"a": 1.0}.get, lambda held: held("a"), lambda held: held.__self__.update(a=3.0)),
    "attribute of a partial": (lambda: with_scale(functools.partial(abs, 1.0)), lambda held: held.scale, set_scale),
    "keyword of a partial": (
        lambda: functools.partial(with_default, scale=1.0),
        lambda held: held(1.0),
        lambda held: held.keywords.update(scale=3.0),
    ),
    "array": (lambda: np.ones(6), lambda held: float(held[0]), fill),
    "array in an object": (
        lambda: Settings(np.ones(6)),
        lambda held: ops.convert_to_tensor(held.scale),
        lambda held: fill(held.scale),
    ),
    "bytes": (
        lambda: bytearray(b"a"),
        lambda held: float(held[0]),
        lambda held: held.extend(held) or (held.pop(0) and held.insert(0, 3)),
    ),
    "queue": (lambda: collections.deque([1.0]), lambda held: held[0], lambda held: held.appendleft(3.0)),
    "tensor": (lambda: torch.ones(6), lambda held: held + 1.0, fill),
    "view of a tensor": (lambda: torch.ones(2, 6), lambda held: torch.exp(held[1]), lambda held: fill(held[1:])),
    "data of a tensor": (lambda: torch.ones(6), torch.exp, lambda held: fill(held.data)),
    "other data of a tensor": (lambda: torch.ones(6), torch.exp, lambda held: setattr(held, "data", torch.zeros(6))),
    "number that a tensor has": (lambda: torch.ones(6), lambda held: float(held[:1]), lambda held: fill(held.data)),
    "list that a tensor has": (lambda: torch.ones(6), lambda held: held.tolist()[0], lambda held: fill(held.data)),
    "decision by a tensor": (
        lambda: torch.ones(()),
        lambda held: 2.0 if held < 2.0 else 1.0,
        lambda held: held.data.fill_(3.0),
    ),
    "memory of an array": (lambda: torch.from_numpy(np.ones(6, "float32")), torch.exp, lambda held: fill(held.numpy())),
    "array of a tensor": (lambda: torch.ones(6), lambda held: float(held[0]), lambda held: fill(held.numpy())),
    "memory of another library": (lambda: torch.ones(6), torch.exp, lambda held: fill(np.from_dlpack(held))),
    "tensor of inference mode": (inference_tensor, torch.exp, fill_in_inference_mode),
}


@pytest.mark.parametrize("kind", HELD)
def test_no_change_of_what_a_layer_holds_goes_unnoticed(kind):
    """It is either recorded again, or runs in eager mode."""
    make, read, change = HELD[kind]

    x = ops.convert_to_tensor(data()[0])
    with recording(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The calls of model")
        models = pair(lambda: holding(make(), read))
        for _ in range(3):
            before = [to_numpy(model(x)) for model in models]
        np.testing.assert_allclose(*before, rtol=1e-6)
        for model in models:
            change(model.network.get_layer("holds").held)
        for model in models:
            after = to_numpy(model(x))
            assert np.any(after != before[0])
        np.testing.assert_allclose(after, to_numpy(models[0](x)), rtol=1e-6)


def test_a_compiled_graph_sees_new_values_of_tensors_of_layers():
    def compiler(graph, tensors):
        # PyTorch's compiler reads these instead of the tensors, if there are any.
        fake = [node.meta.get("val") for node in graph.graph.find_nodes(op="placeholder")]
        assert len({value is None for value in fake}) == 1
        return lambda *tensors: graph(*tensors)

    x, y = data()
    with recording(compiler=compiler):
        models = pair(lambda: holding(torch.ones(6), torch.exp), jit_compile=True)
        for _ in range(2):
            train(models, x, y, steps=3)
            for model in models:
                fill(model.network.get_layer("holds").held.data)
        np.testing.assert_allclose(*train(models, x, y), rtol=1e-5)
        assert all(part.is_compiled for part in (models[1]._graphs.graphs[0].forward, models[1]._graphs.graphs[0].backward))


def set_config(name, value):
    return lambda: getattr(keras.config, f"set_{name}")(value)


@pytest.mark.parametrize(
    ("change", "back", "read"),
    [
        (lambda: setattr(Holds, "shift", 3.0), lambda: setattr(Holds, "shift", 0.0), lambda held: 1.0),
        (set_config("epsilon", 3.0), set_config("epsilon", 1e-7), lambda held: keras.config.epsilon()),
        (
            set_config("image_data_format", "channels_first"),
            set_config("image_data_format", "channels_last"),
            lambda held: len(keras.config.image_data_format()),
        ),
        (set_config("floatx", "float16"), set_config("floatx", "float32"), lambda held: float(keras.config.floatx()[-2:])),
        (
            lambda: torch.set_default_dtype(torch.float16),
            lambda: torch.set_default_dtype(torch.float32),
            lambda held: torch.tensor(1 / 3),
        ),
    ],
    ids=["attribute of a class", "epsilon", "image data format", "floatx", "PyTorch's dtype"],
)
def test_no_change_of_a_class_or_of_a_default_goes_unnoticed(change, back, read):
    x = ops.convert_to_tensor(data()[0])
    with recording():
        models = pair(lambda: holding(None, read))
        for _ in range(3):
            before = [to_numpy(model(x)) for model in models]
        assert graphs_of(models[1]) == 1
        try:
            change()
            after = [to_numpy(model(x)) for model in models]
        finally:
            back()
        assert np.any(after[0] != before[0])
        np.testing.assert_allclose(after[1], after[0], rtol=1e-6)


def test_settings_of_the_training_method_are_found():
    x, y = data(4, (6, 6, 2))
    with double_precision(), recording():
        models = pair(gradient=rsnn.gradients.Rate())
        train(models, x, y)
        for model in models:
            model.gradient.windows = 3
        train(models, x, y)
        assert_equal_state(*models)


def test_settings_that_change_all_the_time_are_recorded_less_and_less_often():
    with recording(eager_calls=2):
        _, model = pair(mlp)
        recorded = []
        for step in range(40):
            if step % 4 == 0:
                neuron(model).cell.surrogate.alpha = 1.0 + step
            before = graphs_of(model)
            model.train_on_batch(*data())
            recorded += [step] * (graphs_of(model) > before)
        assert 1 <= len(recorded) <= 3


def test_one_recording_in_vain_does_not_end_recording(monkeypatch):
    monkeypatch.setattr(call_graphs, "WORTH_RECORDING", 3)
    with recording(eager_calls=1):
        _, model = pair(mlp)
        for kept, calls in ((1, 3), (2, 8), (2, 8), (2, 8), (2, 8)):
            neuron(model).cell.surrogate.alpha += 1.0
            for _ in range(calls):
                model.train_on_batch(*data())
            assert graphs_of(model) == kept

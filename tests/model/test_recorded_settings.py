"""Recorded calls, which are replayed, on PyTorch: a change of any setting that they
depend on takes effect."""

import functools
import types
import warnings

import keras
import numpy as np
import pytest
import torch
from held_settings import HELD, fill
from helpers import assert_close, chain, data, double_precision, mlp, to_numpy
from keras import layers, ops
from recorded_calls import (
    assert_equal_state,
    neuron,
    normalization,
    pair,
    recording,
    train,
)

import keras_ratesnn as rsnn

CHANGES = {
    "rate of dropout": (lambda model: model.network.layers[-5], "rate", 0.6),
    "momentum": (normalization, "momentum", 0.5),
    "regulariser": (lambda model: neuron(model, 1).activity_regularizer, "l1", 0.5),
    "other regulariser": (neuron, "activity_regularizer", keras.regularizers.L2(0.1)),
    "frozen normalisation": (normalization, "trainable", False),
    "frozen weight": (lambda model: model.get_layer("logits").bias, "trainable", False),
    "time steps": (lambda model: model, "timesteps", 1),
    "gradient": (lambda model: model, "gradient", "bptt"),
    "step mode": (lambda model: model, "step_mode", "single"),
}
"""What is changed, an attribute of it, and its new value."""


def test_a_change_of_what_was_recorded_takes_effect_at_once():
    x, y = data(4, (6, 6, 2))
    with double_precision(), recording(eager_calls=0) as graphs:
        models = pair(timesteps=2, jit_compile=True)

        def assert_training_agrees(after):
            for _ in range(3):
                losses = [model.train_on_batch(x, y) for model in models]
                assert losses[1] == pytest.approx(losses[0], rel=1e-9), after
                assert_equal_state(*models)

        assert_training_agrees(None)
        # Only values change.
        before = len(graphs)
        for model in models:
            model.set_weights([weight * 0.5 for weight in model.get_weights()])
        assert_training_agrees("weights")
        assert len(graphs) == before
        for name, (owner, attribute, value) in CHANGES.items():
            before = len(graphs)
            for model in models:
                setattr(owner(model), attribute, value)
            assert_training_agrees(name)
            assert len(graphs) > before, name


def around(layer):
    return chain(layers.Dense(6), rsnn.layers.LIF(), layer, layers.Dense(3))


def assert_takes_effect(make, change, is_recorded=True):
    """A change, a function of the models, changes the outputs of recorded calls as
    those in eager mode."""
    x = ops.convert_to_tensor(data()[0])
    with recording(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The calls of model")
        models = pair(make)
        for _ in range(3):
            before = [to_numpy(model(x)) for model in models]
        np.testing.assert_allclose(*before, rtol=1e-6)
        assert models[1].execution == "recorded" or not is_recorded
        change(models)
        after = [to_numpy(model(x)) for model in models]
    assert np.any(after[1] != before[1])
    np.testing.assert_allclose(*after, rtol=1e-6)


class Options(layers.Layer):
    """Settings in all kinds of places."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.plain = self.single = True
        self.options = {"a": 0.5}
        self.part = functools.partial(ops.multiply, 2.0)
        self.holder = types.SimpleNamespace(scale=1.0, layer=layers.Rescaling(1.0))
        self.method = Scale(1.0).of

    def call(self, inputs):
        x = inputs * self.options.get("a", -1.0) * self.holder.scale
        x = 2.0 * x if hasattr(self, "other") else x
        return self.holder.layer(self.part(self.method(x)))


class Scale:
    def __init__(self, scale):
        self.scale = scale

    def of(self, inputs):
        return inputs * self.scale


def renamed(layer, name):
    delattr(layer, name)
    layer.other = True


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.options.update({"b": layer.options.pop("a")}),
        lambda layer: setattr(layer.holder, "scale", 3.0),
        lambda layer: setattr(layer.holder.layer, "scale", 3.0),
        lambda layer: setattr(layer.method.__self__, "scale", 3.0),
        lambda layer: setattr(layer, "part", functools.partial(ops.multiply, 5.0)),
        lambda layer: renamed(layer, "single"),
        lambda layer: renamed(layer, "plain"),
    ],
    ids=[
        "name in a dict",
        "object",
        "layer in an object",
        "bound method",
        "partial",
        "last name",
        "earlier name",
    ],
)
def test_settings_are_found_wherever_they_are(change):
    def change_options(models):
        for model in models:
            change(model.get_layer("options"))

    assert_takes_effect(lambda: around(Options(name="options")), change_options)


class Holds(layers.Layer):
    """Its output depends on an object, through a function."""

    shift = 0.0

    def __init__(self, held, read, **kwargs):
        super().__init__(**kwargs)
        self.held, self.read = held, read

    def call(self, inputs):
        return inputs * self.read(self.held) + self.shift


def holding(held, read):
    return around(Holds(held, read, name="holds"))


@pytest.mark.parametrize("kind", HELD)
def test_no_change_of_what_a_layer_holds_goes_unnoticed(kind):
    """It is read or recorded again, or runs in eager mode."""
    make, read, change = HELD[kind]

    def change_held(models):
        for model in models:
            change(model.get_layer("holds").held)

    assert_takes_effect(lambda: holding(make(), read), change_held, is_recorded=False)


def test_a_compiled_graph_sees_new_values_of_tensors_of_layers():
    def compiler(graph, tensors):
        # PyTorch's compiler reads these instead of the tensors, if there are any.
        fake = [
            node.meta.get("val") for node in graph.graph.find_nodes(op="placeholder")
        ]
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
        assert models[1].execution == "compiled"


@pytest.mark.parametrize("jit_compile", ["auto", True], ids=["recorded", "compiled"])
def test_an_adapted_layer_that_was_saved_and_shares_memory_with_arrays_is_recorded(
    jit_compile, tmp_path
):
    x, y = data()
    adapted = layers.Normalization()
    adapted.adapt(x)
    with recording() as graphs, warnings.catch_warnings():
        warnings.filterwarnings("error", "The calls of model")
        models = pair(lambda: chain(adapted, mlp()), jit_compile=jit_compile)
        for _ in range(3):
            before = len(graphs)
            np.testing.assert_allclose(*train(models, x, y), rtol=1e-6)
            assert models[1].execution != "eager"
            models[1].save(tmp_path / "model.keras")
        # Keras completes attributes when a model is first saved.
        assert len(graphs) == before
        fill(adapted.mean.numpy())
        np.testing.assert_allclose(*train(models, x, y), rtol=1e-6)


def shift(value):
    Holds.shift = value


def set_data_format(value):
    keras.config.set_image_data_format(value)


@pytest.mark.parametrize(
    ("change", "value", "back", "read"),
    [
        (shift, 3.0, 0.0, lambda held: 1.0),
        (
            set_data_format,
            "channels_first",
            "channels_last",
            lambda held: len(keras.config.image_data_format()),
        ),
        (
            torch.set_default_dtype,
            torch.float16,
            torch.float32,
            lambda held: torch.tensor(1 / 3),
        ),
    ],
    ids=["class", "Keras", "PyTorch"],
)
def test_no_change_of_a_class_or_of_a_default_goes_unnoticed(change, value, back, read):
    try:
        assert_takes_effect(lambda: holding(None, read), lambda models: change(value))
    finally:
        change(back)


def test_settings_that_change_all_the_time_are_recorded_less_and_less_often():
    with recording(eager_calls=2) as graphs:
        _, model = pair(mlp, jit_compile=True)
        numbers = set()
        for step in range(40):
            if step % 4 == 0:
                neuron(model).setting = step
            model.train_on_batch(*data())
            numbers.add(len(graphs))
        assert 2 <= len(numbers) <= 4


def test_the_log_says_what_changed_where_calls_are_counted_anew(caplog):
    caplog.set_level("DEBUG", "keras_ratesnn")
    _, model = pair()
    x, y = data(4, (6, 6, 2))
    fit = {"validation_data": (x, y), "batch_size": 2, "verbose": 0}

    def logged(samples=4):
        caplog.clear()
        model.fit(x[:samples], y[:samples], **fit)
        return [
            log.message.partition("are counted anew; ")[2] for log in caplog.records
        ]

    (first,) = logged()
    assert "'training' of layer 'functional', from True to False" in first
    # What was kept for training and for inference serves again.
    assert logged() == []
    dropout = model.network.layers[-5]
    dropout.rate, dropout.note = 0.6, "new"
    changed, of_validation = logged()
    assert "'rate' of layer 'dropout', from 0.3 to 0.6" in changed
    assert "'note' of layer 'dropout', from None to new" in changed
    assert of_validation == first
    model.gradient = "bptt"
    logged()
    assert "by (BPTT(recompute=False)" in caplog.text
    logged(samples=3)
    assert "are of another kind: {((torch.Size([1, 6, 6, 2])" in caplog.text


def test_one_recording_in_vain_does_not_end_recording():
    with recording(eager_calls=1) as graphs:
        _, model = pair(mlp, jit_compile=True)
        for recorded, calls in enumerate((3, 110, 110), start=1):
            neuron(model).setting = recorded
            for _ in range(calls):
                model.train_on_batch(*data())
            assert len(graphs) == 2 * recorded, "forward and backward"


@pytest.mark.parametrize(
    ("policy", "jit_compile"), [("mixed_bfloat16", "auto"), ("mixed_float16", True)]
)
def test_inference_in_half_precision_leaves_weights_bit_for_bit(policy, jit_compile):
    keras.config.set_dtype_policy(policy)
    x, y = data(8, (6, 6, 2))
    with recording():
        _, model = pair(jit_compile=jit_compile)
        before = [to_numpy(variable) for variable in model.variables]
        for _ in range(3):
            model.predict_on_batch(x)
            model.test_on_batch(x, y)
            model(x, training=False)
        model.predict(x[:5], batch_size=2, verbose=0)
    assert model.execution != "eager"
    assert_close(model.variables, before, rtol=0)

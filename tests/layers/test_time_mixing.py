"""Layers that mix time steps: all steps at once, one after the other, in a stream, with
every training method."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_same,
    loss_and_gradients,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn

T = 5
Y = np.array([0, 1, 2, 1])
STEP_MODES = ["multi", "single"]


@keras.saving.register_keras_serializable(package="tests")
class Echo(rsnn.layers.TimeMixing):
    """y_t = Σ_k w_k x_{t−k}: three taps for each channel, step by step."""

    def build(self, input_shape):
        start = keras.initializers.Constant([0.9, 0.6, -0.4])
        self.taps = self.add_weight(shape=(3,), initializer=start, name="taps")

    def initial_state(self, inputs):
        return [ops.zeros_like(inputs), ops.zeros_like(inputs)]

    def step(self, inputs, state):
        taps = ops.unstack(ops.cast(self.taps, inputs.dtype))
        return sum(tap * x for tap, x in zip(taps, (inputs, *state), strict=True)), [
            inputs,
            state[0],
        ]


@keras.saving.register_keras_serializable(package="tests")
class Backwards(rsnn.layers.TimeMixing):
    """The steps in reverse order: the first output needs the last input."""

    def over_time(self, inputs):
        return ops.flip(inputs, axis=1)


def network(make=Echo):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype=keras.config.dtype_policy().compute_dtype)
    x = make(name="currents")(layers.Dense(8, use_bias=False)(inputs))
    x = make(name="spikes")(rsnn.layers.LIF(0.5, 0.5)(layers.BatchNormalization()(x)))
    x = rsnn.layers.LIF(0.5, 0.3, reset="hard")(layers.Dense(8)(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def test_a_layer_is_its_formula():
    inputs = keras.Input((1,))
    currents = Echo()(inputs)
    model = spiking(
        keras.Model(inputs, [currents, rsnn.layers.LIF()(currents)]),
        4,
        return_sequences=True,
    )
    outputs, _ = model(np.array([[[1.0], [2.0], [3.0], [4.0]]], "float32"))
    np.testing.assert_allclose(
        to_numpy(outputs)[0, :, 0], [0.9, 2.4, 3.5, 4.6], rtol=1e-6
    )


def test_one_window_sees_what_the_layer_does_to_constant_inputs():
    """∂ȳ/∂x̄ = Σ_k w_k (T − k) / T: what enters before the first step is zero."""
    inputs = keras.Input((1,))
    scale = layers.Dense(1, use_bias=False)
    x = Echo()(rsnn.layers.LIF(0.5)(inputs))
    model = spiking(keras.Model(inputs, scale(x)), T, "rate")
    scale.set_weights([np.ones((1, 1))])
    _, gradients = loss_and_gradients(
        model, np.ones((1, T, 1)), Y[:1], lambda y, outputs: ops.sum(outputs)
    )
    of_taps = next(gradient for path, gradient in gradients.items() if "taps" in path)
    rate = to_numpy(
        spiking(keras.Model(inputs, rsnn.layers.LIF(0.5)(inputs)), T)(
            np.ones((1, T, 1))
        )
    )[0, 0]
    np.testing.assert_allclose(
        of_taps, [rate * (T - k) / T for k in range(3)], rtol=1e-5
    )


def test_online_methods_carry_no_gradient_between_steps():
    """The derivative of an output with respect to its own step's input alone: the first
    tap."""
    inputs = keras.Input((1,))
    model = spiking(
        keras.Model(
            inputs, rsnn.layers.LIF()(Echo()(layers.Dense(1, use_bias=False)(inputs)))
        ),
        T,
        "sltt",
    )
    for step_mode in STEP_MODES:
        model.step_mode = step_mode
        x = np.random.default_rng(0).random((1, T, 1)).astype("float32")
        _, gradients = loss_and_gradients(
            model, x, Y[:1], lambda y, outputs: ops.sum(outputs)
        )
        of_kernel, of_taps = gradients.values()
        assert np.abs(of_kernel).max() > 0
        if step_mode == "multi":
            expected = [of_kernel, of_taps]
    assert_same([of_kernel, of_taps], expected)


def test_a_layer_that_looks_ahead_needs_all_steps_at_once():
    inputs = keras.Input((2,))
    model = spiking(
        keras.Model(inputs, rsnn.layers.LIF()(Backwards()(inputs))),
        T,
        return_sequences=True,
    )
    x = np.random.default_rng(0).random((1, T, 2)).astype("float32")
    plain = spiking(
        keras.Model(inputs, rsnn.layers.LIF()(inputs)), T, return_sequences=True
    )
    np.testing.assert_array_equal(
        to_numpy(model(x)), to_numpy(plain(x[:, ::-1].copy()))
    )
    for run in (
        lambda: model.step(x[:, 0]),
        lambda: spiking(model.network, T, step_mode="single")(x),
    ):
        with pytest.raises(
            NotImplementedError,
            match=r'needs all time steps at once.*step_mode="multi"',
        ):
            run()


def test_a_layer_inside_another_layer_is_an_error():
    class Outer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = Echo()

        def call(self, inputs):
            return self.inner(inputs)

    inputs = keras.Input((6,))
    with pytest.raises(ValueError, match="must not hide"):
        spiking(keras.Model(inputs, rsnn.layers.LIF()(Outer()(inputs))), T)

"""Layers that mix time steps: the formula, its gradients by rate and by online methods,
and what looks ahead."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_same,
    chain,
    loss_and_gradients,
    registered,
    spiking,
    to_numpy,
)
from keras import layers, ops

from keras_ratesnn.layers import LIF, TimeMixing

T = 5
TAPS = [0.9, 0.6, -0.4]


@registered
class Echo(TimeMixing):
    """y_t = Σ_k w_k x_{t−k}: three taps, step by step."""

    def build(self, input_shape):
        start = keras.initializers.Constant(TAPS)
        self.taps = self.add_weight(shape=(3,), initializer=start, name="taps")

    def initial_state(self, inputs):
        return [ops.zeros_like(inputs), ops.zeros_like(inputs)]

    def step(self, inputs, state):
        first, second, third = ops.unstack(ops.cast(self.taps, inputs.dtype))
        outputs = first * inputs + second * state[0] + third * state[1]
        return outputs, [inputs, state[0]]


@registered
class Backwards(TimeMixing):
    """The steps in reverse order: the first output needs the last input."""

    def over_time(self, inputs):
        return ops.flip(inputs, axis=1)


def total(y, outputs):
    return ops.sum(outputs)


def test_one_window_sees_what_the_layer_does_to_constant_inputs():
    """∂ȳ/∂x̄ = Σ_k w_k (T − k) / T: what enters before the first step is zero."""
    model = spiking(chain(LIF(0.0), Echo(), shape=(1,)), T, "rate")
    # A spike at each step.
    x = np.ones((1, T, 1))
    value, gradients = loss_and_gradients(model, x, x, total)
    shares = np.array([1.0, 0.8, 0.6])
    assert value == pytest.approx(np.sum(TAPS * shares), rel=1e-5)
    (of_taps,) = gradients.values()
    np.testing.assert_allclose(of_taps, shares, rtol=1e-5)


def test_online_methods_carry_no_gradient_between_steps():
    """The derivative of an output with respect to its own step's input alone: the first
    tap."""
    results = []
    for step_mode in ("multi", "single"):
        keras.utils.set_random_seed(0)
        dense = layers.Dense(1, use_bias=False)
        network = chain(dense, Echo(), LIF(), shape=(1,))
        model = spiking(network, T, "sltt", step_mode=step_mode)
        x = np.random.default_rng(0).random((1, T, 1)).astype("float32")
        _, gradients = loss_and_gradients(model, x, x, total)
        assert all(map(np.any, gradients.values()))
        results.append(list(gradients.values()))
    assert_same(*results)


def test_a_layer_that_looks_ahead_needs_all_steps_at_once():
    network, plain = chain(Backwards(), LIF()), chain(LIF())
    x = np.random.default_rng(0).random((1, T, 6)).astype("float32")
    found = spiking(network, T, return_sequences=True)(x)
    expected = spiking(plain, T, return_sequences=True)(x[:, ::-1].copy())
    np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))
    message = r'needs all time steps at once.*step_mode="multi"'
    for run in (
        lambda: spiking(network, T).step(x[:, 0]),
        lambda: spiking(network, T, step_mode="single")(x),
    ):
        with pytest.raises(NotImplementedError, match=message):
            run()

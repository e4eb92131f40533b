"""A layer whose call takes `time_step` receives the step, in both step modes, and can
be trained with each method."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    data,
    loss_and_gradients,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn

T = 4


@keras.saving.register_keras_serializable(package="tests")
class ScaleByStep(layers.Layer):
    """Multiplies each step by a trainable factor."""

    def build(self, input_shape):
        self.factors = self.add_weight(shape=(T,), initializer="ones", name="factors")

    def call(self, inputs, time_step=None):
        if (
            time_step is None
        ):  # While a network is built, and outside of a SpikingModel.
            return inputs
        factor = ops.take(self.factors, time_step, axis=0)
        return inputs * ops.reshape(
            ops.cast(factor, inputs.dtype), (-1, *([1] * (len(inputs.shape) - 1)))
        )


def network(static):
    inputs = keras.Input((6,))
    scale = ScaleByStep()
    x = (
        scale(inputs)
        if static
        else scale(layers.Dense(6)(rsnn.layers.LIF()(layers.Dense(6)(inputs))))
    )
    return keras.Model(inputs, layers.Dense(3)(rsnn.layers.LIF()(x))), scale


@pytest.mark.parametrize(
    ("gradient", "has_time", "step_mode"),
    [
        ("rate", False, "multi"),
        ("rate", True, "single"),
        ("bptt", True, "multi"),
        ("bptt", False, "single"),
    ],
)
def test_every_step_receives_its_time_step(gradient, has_time, step_mode):
    inputs = keras.Input((3,))
    scale = ScaleByStep()
    model = spiking(
        keras.Model(inputs, scale(inputs) + rsnn.layers.LIF()(inputs)),
        T,
        gradient,
        step_mode=step_mode,
    )
    model.return_sequences = True
    factors = np.array([1.0, -2.0, 0.5, 3.0], "float32")
    scale.factors.assign(factors)
    x = np.full((5, T, 3) if has_time else (5, 3), 0.25, "float32")
    for training in (False, True):
        np.testing.assert_allclose(
            to_numpy(model(x, training=training))[:, :, 0],
            np.tile(0.25 * factors, (5, 1)),
            rtol=1e-6,
        )


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("static", [True, False])
def test_with_equal_factors_the_gradient_is_that_of_a_network_without(
    static, step_mode
):
    timed, scale = network(static)
    x, y = data(8)
    _, gradients = loss_and_gradients(spiking(timed, T, step_mode=step_mode), x, y)
    dense = [layer for layer in timed.layers if isinstance(layer, layers.Dense)]
    inputs = keras.Input((6,))
    y_hat = inputs if static else dense[1](rsnn.layers.LIF()(dense[0](inputs)))
    plain = keras.Model(inputs, dense[-1](rsnn.layers.LIF()(y_hat)))
    _, expected = loss_and_gradients(spiking(plain, T, step_mode=step_mode), x, y)
    assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(gradients[scale.factors.path]).max() > 0


@rsnn.affine
class AffineScaleByStep(ScaleByStep):
    """Affine at each step, with a different factor."""


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_an_affine_layer_that_takes_the_step_passes_on_its_time_mean(step_mode):
    inputs = keras.Input((6,))
    spikes, scale, last = rsnn.layers.LIF(), AffineScaleByStep(), layers.Dense(3)
    model = spiking(
        keras.Model(inputs, last(scale(spikes(inputs)))), T, step_mode=step_mode
    )
    factors = np.array([1.0, -2.0, 0.5, 3.0], "float32")
    scale.factors.assign(factors)
    x, _ = data(5, (T, 6))
    weights = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
    _, gradients = loss_and_gradients(
        model, x, weights, lambda weights, outputs: ops.sum(weights * outputs)
    )
    spiking_model = spiking(
        keras.Model(inputs, spikes(inputs)), T, return_sequences=True
    )
    means = (to_numpy(spiking_model(x)) * factors[:, None]).mean(1)
    np.testing.assert_allclose(
        gradients[last.kernel.path], means.T @ weights, rtol=1e-4, atol=1e-5
    )

"""A layer whose call takes `time_step` receives the step, in both step modes. Its
gradients are in tests/contract."""

import keras
import numpy as np
import pytest
from helpers import (
    both_step_modes,
    data,
    loss_and_gradients,
    registered,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn

T = 4
FACTORS = np.array([1.0, -2.0, 0.5, 3.0], "float32")


@registered
class ScaleByStep(layers.Layer):
    """Multiplies each step by a trainable factor."""

    def build(self, input_shape):
        self.factors = self.add_weight(shape=(T,), initializer="ones", name="factors")

    def call(self, inputs, time_step=None):
        # While a network is built, and outside of a SpikingModel.
        if time_step is None:
            return inputs
        factors = ops.take(self.factors, time_step, axis=0)
        shape = (-1, *[1] * (len(inputs.shape) - 1))
        return inputs * ops.reshape(ops.cast(factors, inputs.dtype), shape)


@rsnn.layers.affine
class AffineScaleByStep(ScaleByStep):
    """Affine at each step, with a different factor."""


@both_step_modes
@pytest.mark.parametrize("kind", [ScaleByStep, AffineScaleByStep])
def test_a_layer_that_takes_the_step_passes_on_its_time_mean(kind, step_mode):
    inputs, scale, last = keras.Input((6,)), kind(), layers.Dense(3)
    spikes = rsnn.layers.LIF()(inputs)
    network = keras.Model(inputs, last(scale(spikes)))
    scale.factors.assign(FACTORS)
    x, _ = data(5, (T, 6))
    weights = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
    _, gradients = loss_and_gradients(
        spiking(network, T, step_mode=step_mode),
        x,
        weights,
        lambda weights, outputs: ops.sum(weights * outputs),
    )
    plain = spiking(keras.Model(inputs, spikes), T, return_sequences=True)
    means = np.mean(to_numpy(plain(x)) * FACTORS[:, None], axis=1)
    found = gradients[last.kernel.path]
    np.testing.assert_allclose(found, means.T @ weights, rtol=1e-4, atol=1e-5)
    assert np.any(gradients[scale.factors.path])

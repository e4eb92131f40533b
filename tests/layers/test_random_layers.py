"""Layers that draw random numbers draw once per batch: the same for all steps of a
sample, and for its rate. Subclasses of layers of Keras are run."""

import keras
import numpy as np
import pytest
from helpers import both_step_modes, chain, data, spiking, to_numpy
from keras import layers

from keras_ratesnn.layers import IF, LIF

RANDOM = [
    lambda: layers.Dropout(0.5, seed=7),
    lambda: layers.RandomFlip("horizontal", seed=7),
]


@both_step_modes
@pytest.mark.parametrize("make", RANDOM)
def test_all_steps_of_a_sample_see_the_same_numbers_and_each_batch_others(
    make, step_mode
):
    network = chain(IF(threshold=0.5), make(), shape=(4, 4, 1))
    model = spiking(network, 5, step_mode=step_mode, return_sequences=True)
    frames = np.zeros((9, 5, 4, 4, 1), "float32")
    frames[:, :, :, 0] = 0.5
    first, second = (to_numpy(model(frames, training=True)) for _ in range(2))
    assert (first != second).any()
    for batch in (first, second):
        assert np.ptp(batch[:, 0], axis=0).any()
        repeated = np.repeat(batch[:, :1], 5, axis=1)
        np.testing.assert_allclose(batch, repeated, rtol=1e-6)


@keras.saving.register_keras_serializable(package="tests")
class Scaled(layers.BatchNormalization):
    """A custom normalisation: Keras' output times five."""

    def call(self, inputs, training=None, mask=None):
        return 5.0 * super().call(inputs, training=training, mask=mask)


@both_step_modes
def test_a_subclass_of_batch_normalization_with_its_own_call_is_run(step_mode):
    """The statistics of spikes, and not those of the rate, are what it sees last."""
    inputs, normalization = keras.Input((6,)), Scaled(momentum=0.0)
    spikes = LIF()(inputs)
    network = keras.Model(inputs, [normalization(spikes), spikes])
    model = spiking(network, 4, step_mode=step_mode, return_sequences=True)
    outputs, spikes = to_numpy(model(data(64)[0], training=True))
    last = spikes if step_mode == "multi" else spikes[:, -1:]
    mean, variance = last.mean(axis=(0, 1)), last.var(axis=(0, 1))
    expected = 5.0 * (last - mean) / np.sqrt(variance + normalization.epsilon)
    found = outputs[:, -last.shape[1] :]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    for variable, value in (
        (normalization.moving_mean, mean),
        (normalization.moving_variance, variance),
    ):
        np.testing.assert_allclose(to_numpy(variable), value, rtol=1e-3, atol=1e-5)

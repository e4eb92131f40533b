"""Layers that draw random numbers draw once per batch: the same for all steps of a
sample, and for its rate. Cells draw at each step. Subclasses of layers of Keras are
run."""

import keras
import numpy as np
import pytest
from drawn_networks import Drawing
from helpers import (
    assert_same,
    both_step_modes,
    chain,
    data,
    loss_and_gradients,
    rate_and_sltt,
    registered,
    spiking,
    to_numpy,
)
from keras import layers
from numpy.testing import assert_allclose

from keras_ratesnn.layers import IF, LIF, Neuron

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
        assert_allclose(batch, repeated, rtol=1e-6)


@both_step_modes
@pytest.mark.parametrize("gradient", ["rate", "bptt", "sltt"])
def test_the_noise_of_a_cell_at_each_step_is_that_which_is_differentiated(
    gradient, step_mode
):
    """As if it were given; the next batch and a stream draw on."""
    x, y = data(5, (4, 6))
    drawn = keras.random.SeedGenerator(3)
    noise = [keras.random.normal((5, 8), seed=drawn) for _ in range(12)]
    noise = np.split(np.stack(to_numpy(noise), axis=1), 3, axis=1)
    first, last = layers.Dense(8), layers.Dense(3)
    inputs, given = keras.Input((6,)), keras.Input((8,))
    current = layers.Add()([first(inputs), given])
    networks = (
        chain(first, Neuron(Drawing()), last),
        keras.Model([inputs, given], last(LIF()(current))),
    )
    noisy, plain = (
        spiking(network, 4, gradient, step_mode=step_mode) for network in networks
    )
    for batch in noise[:2]:
        (loss, found), (wanted, expected) = (
            loss_and_gradients(noisy, x, y),
            loss_and_gradients(plain, [x, batch], y),
        )
        assert loss == pytest.approx(wanted, rel=1e-5)
        assert_same(found, expected)
    for t in range(4):
        found, expected = noisy.step(x[:, t]), plain.step([x[:, t], noise[2][:, t]])
        assert_same([to_numpy(found)], [to_numpy(expected)])


@rate_and_sltt
def test_noise_without_a_generator_is_an_error_where_it_is_needed_again(
    gradient, step_mode
):
    cell = Drawing()
    cell.generator = None
    network = chain(layers.Dense(4), Neuron(cell), layers.Dense(3))

    def train():
        model = spiking(network, gradient=gradient, step_mode=step_mode)
        loss_and_gradients(model, *data())

    with pytest.raises(ValueError, match="SeedGenerator"):
        train()


@registered
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
    assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    for variable, value in (
        (normalization.moving_mean, mean),
        (normalization.moving_variance, variance),
    ):
        assert_allclose(to_numpy(variable), value, rtol=1e-3, atol=1e-5)

"""Encoders turn an input without time into spikes, in both step modes."""

import keras
import numpy as np
import pytest
from helpers import both_step_modes, chain, data, gradient_of, spiking, to_numpy
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn.layers import IF, BernoulliEncoder, LatencyEncoder

T = 6
ENCODERS = [(BernoulliEncoder, 1.0), (LatencyEncoder, 0.0)]


def sequences(encoder, x, step_mode="multi", timesteps=T):
    """The encoder's spikes, passed on by neurons without a leak whose threshold equals
    their size, in two batches."""
    network = chain(encoder, IF())
    model = spiking(network, timesteps, step_mode=step_mode, return_sequences=True)
    return to_numpy([model(x), model(x)])


@both_step_modes
def test_latency_is_one_spike_the_earlier_the_larger(step_mode):
    x = np.array([[1.0, 0.8, 0.5, 0.2, 0.01, 0.0]], "float32")
    spikes = sequences(LatencyEncoder(), x, step_mode)[0][0]
    assert_array_equal(spikes.sum(axis=0), [1, 1, 1, 1, 1, 0])
    assert_array_equal(spikes.argmax(axis=0)[:5], [0, 1, 2, 4, 5])


@both_step_modes
def test_bernoulli_spikes_have_the_inputs_probability_and_are_drawn_at_every_step(
    step_mode,
):
    """A seed repeats the draw."""
    rates = np.array([[0.0, 0.2, 0.5, 0.8, 1.0, 1.5]], "float32")
    x = np.repeat(rates, 500, axis=0)
    encoder = BernoulliEncoder(seed=1)
    first, second = sequences(encoder, x, step_mode, 20)
    assert set(np.unique(first)) == {0.0, 1.0}
    means = first.mean(axis=(0, 1))
    assert_allclose(means, np.minimum(rates[0], 1.0), atol=0.03)
    assert (first[..., 2] != second[..., 2]).mean() > 0.3
    assert (first[:, 0, 2] != first[:, 1, 2]).mean() > 0.3
    encoder = BernoulliEncoder.from_config(encoder.get_config())
    again, _ = sequences(encoder, x, step_mode, 20)
    assert_array_equal(again, first)


@both_step_modes
@pytest.mark.parametrize(("encoder", "slope"), ENCODERS)
def test_a_layer_before_the_encoder_gets_the_derivative_it_declares(
    encoder, slope, step_mode
):
    inputs = keras.Input((6,))
    network = keras.Model(inputs, [encoder()(inputs), IF()(inputs)])
    model = spiking(network, T, step_mode=step_mode)
    x = np.full((3, 6), 0.5, "float32")
    (gradient,) = gradient_of(lambda x: ops.sum(model(x, training=True)[0]), [x])
    assert_allclose(gradient, np.full((3, 6), slope), rtol=1e-6)


@both_step_modes
@pytest.mark.parametrize("encoder", [BernoulliEncoder, LatencyEncoder])
def test_an_encoder_of_an_input_with_time_is_an_error(encoder, step_mode):
    with pytest.raises(ValueError, match="must be given an input without time"):
        sequences(encoder(), data(4, (T, 6))[0], step_mode)

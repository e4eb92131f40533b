"""Encoders turn an input without time into spikes, in both step modes."""

import keras
import numpy as np
import pytest
from helpers import data, gradient_of, spiking
from keras import ops

import keras_ratesnn as rsnn

T = 6
ENCODERS = [rsnn.layers.BernoulliEncoder, rsnn.layers.LatencyEncoder]
MODES = ["multi", "single"]


def encoding(encoder, timesteps=T, gradient="rate", **kwargs):
    inputs = keras.Input((6,))
    return spiking(
        keras.Model(inputs, rsnn.layers.IF()(encoder(inputs))),
        timesteps,
        gradient,
        **kwargs,
    )


def sequences(encoder, x, timesteps=T, **kwargs):
    """The encoder's spikes, passed on by neurons without a leak whose threshold equals
    their size."""
    return encoding(encoder, timesteps, return_sequences=True, **kwargs).predict(
        x, verbose=0
    )


@pytest.mark.parametrize("step_mode", MODES)
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_latency_is_one_spike_the_earlier_the_larger(gradient, step_mode):
    x = np.array([[1.0, 0.8, 0.5, 0.2, 0.01, 0.0]], "float32")
    spikes = sequences(
        rsnn.layers.LatencyEncoder(), x, gradient=gradient, step_mode=step_mode
    )[0]
    np.testing.assert_array_equal(spikes.sum(axis=0), [1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(spikes.argmax(axis=0)[:5], [0, 1, 2, 4, 5])


@pytest.mark.parametrize("step_mode", MODES)
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_bernoulli_spikes_have_the_inputs_probability_and_are_drawn_at_every_step(
    gradient, step_mode
):
    x = np.repeat(np.array([[0.0, 0.2, 0.5, 0.8, 1.0, 1.5]], "float32"), 500, axis=0)
    model = encoding(
        rsnn.layers.BernoulliEncoder(seed=1),
        20,
        gradient,
        step_mode=step_mode,
        return_sequences=True,
    )
    first, second = (model.predict(x, batch_size=500, verbose=0) for _ in range(2))
    assert set(np.unique(first)) == {0.0, 1.0}
    np.testing.assert_allclose(
        first.mean(axis=(0, 1)), [0, 0.2, 0.5, 0.8, 1, 1], atol=0.03
    )
    assert (first[..., 2] != second[..., 2]).mean() > 0.3
    assert (first[:, 0, 2] != first[:, 1, 2]).mean() > 0.3


def test_a_seed_repeats_the_draw():
    x, _ = data()
    for step_mode in MODES:
        left, right = (
            sequences(rsnn.layers.BernoulliEncoder(seed=3), x, step_mode=step_mode)
            for _ in range(2)
        )
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("step_mode", MODES)
@pytest.mark.parametrize(
    ("encoder", "slope"),
    [(rsnn.layers.BernoulliEncoder, 1.0), (rsnn.layers.LatencyEncoder, 0.0)],
)
def test_a_layer_before_the_encoder_gets_the_derivative_it_declares(
    encoder, slope, step_mode
):
    inputs = keras.Input((6,))
    network = keras.Model(inputs, [encoder()(inputs), rsnn.layers.LIF()(inputs)])
    model = spiking(network, T, step_mode=step_mode)
    x = np.full((3, 6), 0.5, "float32")
    (gradient,) = gradient_of(lambda x: ops.sum(model(x, training=True)[0]), [x])
    np.testing.assert_allclose(gradient, np.full((3, 6), slope), rtol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("step_mode", MODES)
def test_an_encoder_of_an_input_with_time_is_an_error(encoder, step_mode):
    x, _ = data(4, (T, 6))
    with pytest.raises(ValueError, match="must be given an input without time"):
        encoding(encoder(name="encoder"), step_mode=step_mode).predict(x, verbose=0)

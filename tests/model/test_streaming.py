"""Streaming: a model that receives one time step at a time."""

import numpy as np
import pytest
from helpers import BACKEND, chain, compiled, data, spiking, to_numpy
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn.layers import IF, LIF, TimeMean, TimeMixing

T = 5


@pytest.fixture
def model():
    network = chain(
        layers.Dense(8),
        layers.BatchNormalization(),
        LIF(decay=0.5, threshold=0.4),
        layers.Dropout(0.5),
        layers.Dense(8),
        IF(),
        layers.Dense(3),
    )
    model = compiled(spiking(network, T))
    model.fit(*data(), verbose=0)
    return model


def test_a_sequence_may_be_longer_than_timesteps(model):
    x, _ = data(4, (3 * T, 6))
    whole = spiking(model.network, 3 * T, return_sequences=True).predict(x, verbose=0)
    steps = [to_numpy(model.step(x[:, t])) for t in range(3 * T)]
    assert_allclose(np.stack(steps, 1), whole, rtol=1e-4, atol=1e-5)


def test_after_a_reset_neurons_start_at_rest_with_any_batch_size(model):
    x, _ = data(4, (2, 6))
    first = to_numpy(model.step(x[:, 0]))
    assert not np.allclose(to_numpy(model.step(x[:, 0])), first)
    message = r"inputs for 3 sequences, after 2 steps with 4\. Call reset_state\(\)"
    with pytest.raises(ValueError, match=message):
        model.step(x[:3, 0])
    model.reset_state()
    assert_array_equal(to_numpy(model.step(x[:, 0])), first)
    model.reset_state()
    message = r"must have shape \(batch, 6\) in `step`, without time"
    with pytest.raises(ValueError, match=message):
        model.step(x)
    assert model.step(x[:2, 0]).shape == (2, 3)


def test_a_mean_of_a_mean_is_that_mean():
    means = TimeMean(), layers.Dense(3), TimeMean()
    model = spiking(chain(layers.Dense(8), LIF(0.5, 0.4), *means), T)
    x, _ = data(4, (T, 6))
    for t in range(T):
        last = to_numpy(model.step(x[:, t]))
    assert_allclose(last, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_a_sequence_in_progress_sees_no_training_and_no_other_call(model):
    x, _ = data()
    first = to_numpy(model.step(x))
    model.predict(x, verbose=0)
    second = to_numpy(model.step(x))
    model.reset_state()
    assert_array_equal(to_numpy(model.step(x)), first)
    assert_array_equal(to_numpy(model.step(x)), second)


class Smoothed(TimeMixing):
    """The mean of the last two inputs, of which it keeps the last as it is."""

    def initial_state(self, inputs):
        return ops.zeros_like(inputs)

    def step(self, inputs, state):
        return 0.5 * (inputs + state), inputs


class Filtered(Smoothed):
    """A low-pass filter, whose output it keeps."""

    def step(self, inputs, state):
        mean, _ = super().step(inputs, state)
        return mean, mean


def test_what_callers_do_to_their_arrays_after_a_step_changes_no_state():
    x, _ = data(4, (T, 6))
    network = chain(Smoothed(), layers.Dense(6), LIF(), Filtered())
    model = spiking(network, T, "bptt")
    whole = [to_numpy(model.step(x[:, t])) for t in range(T)]
    model.reset_state()
    buffer = given = np.empty_like(x[:, 0])
    if BACKEND == "torch":
        given = ops.convert_to_tensor(buffer)
        buffer = given.numpy()
    for t in range(T):
        buffer[:] = x[:, t]
        output = model.step(given)
        assert_array_equal(to_numpy(output), whole[t])
        if BACKEND == "torch":
            output *= 2.0

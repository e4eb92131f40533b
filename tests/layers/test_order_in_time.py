"""A data set where only time tells: what each training method learns of it. A test of honesty; docs/guide.md shows the same."""

import itertools

import keras
import numpy as np
import pytest
from helpers import spiking
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate

T, GAP = 8, 2


def order_in_time():
    """Two pairs of channels, each of which spikes once: one of a pair two steps after the other. The class says which.

    Both classes have all starts, so every channel has the same rate in both.
    """
    x, y = [], []
    for label, *starts in itertools.product((0, 1), range(4), range(4)):
        sample = np.zeros((T, 4), "float32")
        for pair, start in enumerate(starts):
            sample[start, 2 * pair + label] = 1.0
            sample[start + GAP, 2 * pair + 1 - label] = 1.0
        x.append(sample)
        y.append(label)
    return np.stack(x), np.array(y)


def accuracy(gradient, epochs=40):
    """That of neurons without memory after delays, which alone can bring the spikes of a pair together."""
    keras.utils.set_random_seed(0)
    inputs, delay = keras.Input((4,)), rsnn.layers.Delay(max_delay=GAP + 1)
    x = rsnn.layers.LIF(0.0)(layers.Dense(16)(delay(inputs)))
    model = spiking(keras.Model(inputs, layers.Dense(2)(x)), T, gradient)
    delay.position.assign(np.zeros(4))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.1), loss, metrics=["accuracy"])
    x, y = order_in_time()
    model.fit(x, y, epochs=epochs, batch_size=32, callbacks=[rsnn.callbacks.LowerSigma(epochs // 2)], verbose=0)
    return model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]


@pytest.mark.runs_once
def test_one_rate_is_at_chance_where_only_the_order_of_spikes_tells():
    x, y = order_in_time()
    np.testing.assert_array_equal(x[y == 0].mean(axis=(0, 1)), x[y == 1].mean(axis=(0, 1)))
    assert accuracy("rate", epochs=20) == 0.5


@pytest.mark.runs_once
@pytest.mark.parametrize("gradient", [Rate(windows=T), "bptt"], ids=str)
def test_windows_of_one_step_and_bptt_learn_the_order(gradient):
    assert accuracy(gradient) >= 0.95

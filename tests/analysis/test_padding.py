"""Analysis of sequences of unequal length: padding counts nowhere."""

import keras
import numpy as np
import pytest
from helpers import compiled, spiking, to_numpy
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import analysis

T = 4
LENGTHS = (4, 1, 2, 3)
Y = np.array([0, 1, 2, 1])


def sequences():
    x = np.random.default_rng(0).normal(1.0, 1.0, (4, T, 5)).astype("float32")
    for sample, length in enumerate(LENGTHS):
        x[sample, length:] = np.nan
    return x


def model_of(**kwargs):
    keras.utils.set_random_seed(0)
    parts = [
        layers.Dense(6),
        rsnn.layers.LIF(0.5, 0.5, name="first"),
        layers.Dense(7, bias_initializer="ones"),
        rsnn.layers.LIF(0.5, 0.3, name="second"),
        layers.Dense(3),
    ]
    return spiking(keras.Sequential([keras.Input((5,)), *parts]), T, **kwargs)


def padded_and_alone(measure):
    """What `measure(model, x, y)` gives for padded sequences, and a list of what it
    gives for each sequence alone, without padding."""
    padded, x, alone = model_of(mask_value=np.nan), sequences(), []
    for sample, length in enumerate(LENGTHS):
        model, one = (
            rsnn.SpikingModel(padded.network, length),
            slice(sample, sample + 1),
        )
        alone.append(measure(model, x[one, :length], Y[one]))
    return measure(padded, x, Y), alone


def test_rates_are_spikes_per_step_that_is_not_padding():
    rates, alone = padded_and_alone(lambda model, x, y: analysis.firing_rates(model, x))
    for layer in range(2):
        by_neuron = [found.by_neuron[layer] for found in alone]
        expected = np.average(by_neuron, axis=0, weights=LENGTHS)
        assert_allclose(rates.by_neuron[layer], expected, rtol=1e-6)
        for t in range(T):
            found = [one.by_step[layer][t] for one in alone if t < len(one.by_step[0])]
            assert rates.by_step[layer][t] == pytest.approx(np.mean(found), rel=1e-6)
    description = rsnn.describe(model_of(mask_value=np.nan), sequences(), verbose=False)
    found = [layer.firing_rate for layer in description.layers]
    assert found == pytest.approx(rates.mean.tolist(), rel=1e-6)


def test_steps_count_from_the_first_that_is_not_padding():
    after, padded = sequences(), model_of(mask_value=np.nan)
    shifts = zip(after, LENGTHS, strict=True)
    before = np.stack([np.roll(steps, T - length, axis=0) for steps, length in shifts])
    found, expected = (
        [
            analysis.firing_rates(padded, x).by_step,
            analysis.raster(padded, x, "second").spikes,
        ]
        for x in (before, after)
    )
    assert_allclose(found[0], expected[0], rtol=1e-6)
    assert_array_equal(found[1], expected[1])


def test_energy_is_the_mean_of_that_of_each_sequence():
    energy, alone = padded_and_alone(lambda model, x, y: analysis.energy(model, x))
    for name in ("multiply_adds", "accumulates", "traffic"):
        expected = np.mean([getattr(one, name) for one in alone], axis=0)
        assert_allclose(getattr(energy, name), expected, rtol=1e-6)


def test_accuracy_over_time_is_that_of_the_steps_so_far():
    def measure(model, x, y):
        return analysis.accuracy_over_time(model, x, y, verbose=0).accuracy

    found, alone = padded_and_alone(measure)
    # The answer of a sequence stays that of its last step.
    longest = [np.pad(one, (0, T - len(one)), mode="edge") for one in alone]
    assert_allclose(found, np.mean(longest, axis=0), rtol=1e-6)


def test_shuffling_in_time_leaves_padding_where_it_is():
    """Of a sequence of one step nothing is shuffled."""
    padded, x = model_of(mask_value=np.nan), sequences()[1:2]
    answer = to_numpy(padded(x)).argmax(axis=-1)
    for y, accuracy in ((answer, 1.0), ((answer + 1) % 3, 0.0)):
        found = analysis.shuffle_in_time(padded, x, y, verbose=0)
        assert (found.accuracy, found.shuffled) == (accuracy, accuracy)


def test_independence_over_time_refuses_padding():
    padded = compiled(model_of(mask_value=np.nan))
    with pytest.raises(ValueError, match="sequences of equal length"):
        analysis.independence(padded, sequences(), Y)

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
    x = (
        np.random.default_rng(0)
        .normal(1.0, 1.0, (len(LENGTHS), T, 5))
        .astype("float32")
    )
    for sample, length in enumerate(LENGTHS):
        x[sample, length:] = np.nan
    return x


def model_of(**kwargs):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    x = rsnn.layers.LIF(0.5, 0.5, name="first")(layers.Dense(6, name="in")(inputs))
    x = rsnn.layers.LIF(0.5, 0.3, name="second")(
        layers.Dense(7, bias_initializer="ones", name="between")(x)
    )
    return spiking(keras.Model(inputs, layers.Dense(3, name="out")(x)), T, **kwargs)


def each_alone(measure):
    """What `measure(model, x, y)` gives for each sequence alone, without padding, with
    its length as a weight."""
    padded, found = model_of(mask_value=np.nan), []
    for sample, length in enumerate(LENGTHS):
        alone = rsnn.SpikingModel(padded.network, length)
        found.append(
            (
                length,
                measure(
                    alone,
                    sequences()[sample : sample + 1, :length],
                    Y[sample : sample + 1],
                ),
            )
        )
    return padded, found


def test_rates_are_spikes_per_step_that_is_not_padding():
    padded, found = each_alone(lambda model, x, y: analysis.firing_rates(model, x))
    rates = analysis.firing_rates(padded, sequences())
    for layer in range(2):
        expected = sum(
            length * of_one.by_neuron[layer] for length, of_one in found
        ) / sum(LENGTHS)
        assert_allclose(rates.by_neuron[layer], expected, rtol=1e-6)
        for t in range(T):
            at_step = [
                of_one.by_step[layer][t] for length, of_one in found if t < length
            ]
            assert rates.by_step[layer][t] == pytest.approx(np.mean(at_step), rel=1e-6)
    description = rsnn.describe(padded, sequences(), verbose=False)
    assert [layer.firing_rate for layer in description.layers] == pytest.approx(
        rates.mean.tolist(), rel=1e-6
    )


def test_steps_count_from_the_first_that_is_not_padding():
    after, padded = sequences(), model_of(mask_value=np.nan)
    before = np.stack(
        [
            np.roll(steps, T - length, axis=0)
            for steps, length in zip(after, LENGTHS, strict=True)
        ]
    )
    found, expected = (
        analysis.firing_rates(padded, x).by_step for x in (before, after)
    )
    assert_allclose(found, expected, rtol=1e-6)
    found, expected = (
        analysis.raster(padded, x, "second").spikes for x in (before, after)
    )
    assert_array_equal(found, expected)


def test_energy_is_the_mean_of_that_of_each_sequence():
    padded, found = each_alone(lambda model, x, y: analysis.energy(model, x))
    energy = analysis.energy(padded, sequences())
    for name in ("multiply_adds", "accumulates"):
        expected = np.mean([getattr(of_one, name) for _, of_one in found], axis=0)
        assert_allclose(getattr(energy, name), expected, rtol=1e-6)
    expected = np.mean([of_one.traffic for _, of_one in found], axis=0)
    assert_allclose(energy.traffic, expected, rtol=1e-6)


def test_accuracy_over_time_is_that_of_the_steps_so_far():
    padded, found = each_alone(
        lambda model, x, y: analysis.accuracy_over_time(model, x, y, verbose=0).accuracy
    )
    accuracy = analysis.accuracy_over_time(padded, sequences(), Y, verbose=0).accuracy
    expected = [
        np.mean([of_one[min(t, length - 1)] for length, of_one in found])
        for t in range(T)
    ]
    assert_allclose(accuracy, expected, rtol=1e-6)


def test_shuffling_in_time_leaves_padding_where_it_is():
    """Of a sequence of one step nothing is shuffled."""
    padded, x = model_of(mask_value=np.nan), sequences()[1:2]
    (y,) = to_numpy(padded(x)).argmax(axis=-1)
    for right in (True, False):
        found = analysis.shuffle_in_time(
            padded, x, np.array([y if right else (y + 1) % 3]), verbose=0
        )
        assert (found.accuracy, found.shuffled) == (float(right), float(right))


def test_gradients_of_padded_sequences_are_compared():
    padded = compiled(
        model_of(mask_value=np.nan, gradient=rsnn.gradients.Rate(windows=T))
    )
    assert_allclose(
        analysis.gradient_agreement(padded, sequences(), Y).cosine, 1.0, rtol=1e-5
    )


def test_independence_over_time_refuses_padding():
    with pytest.raises(ValueError, match="sequences of equal length"):
        analysis.independence(compiled(model_of(mask_value=np.nan)), sequences(), Y)


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, x: analysis.firing_rates(model, x),
        lambda model, x: analysis.accuracy_over_time(model, x, Y, verbose=0),
        lambda model, x: rsnn.predict_until_sure(model, x),
        lambda model, x: compiled(model).fit(
            sequences(), Y, callbacks=[rsnn.callbacks.FiringRate(x)], verbose=0
        ),
    ],
    ids=["rates", "accuracy", "until sure", "callback"],
)
def test_a_sequence_of_padding_alone_is_an_error_as_in_predict(measure):
    x = sequences()
    x[2] = np.nan
    with pytest.raises(
        ValueError, match="only padding in 1 of 4 samples, the first of them sample 2"
    ):
        measure(model_of(mask_value=np.nan), x)

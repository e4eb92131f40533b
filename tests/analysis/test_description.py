"""describe: rates, silent and saturated neurons and synaptic operations match counts by
hand; problems give warnings."""

import re

import helpers
import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import describe
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import IF, LIF, LeakyReadout, Recurrent


def quiet(model, x):
    return describe(model, x, verbose=False)


def chain(*steps, shape=(6,), timesteps=2, **kwargs):
    network = keras.Sequential([keras.Input(shape), *steps], name="chain")
    return helpers.spiking(network, timesteps, **kwargs)


X, _ = helpers.data()


def test_rates_and_shares_are_counted_over_samples_and_steps():
    # IF neurons with an input of 1, 0.5 and 0 spike at every, at every other and at no
    # step.
    x = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.5, 0.5, 0.0]], "float32")
    neurons = IF(name="neurons")
    model = chain(neurons, layers.Dense(3), shape=(4,), timesteps=4)
    description = quiet(model, x)
    (layer,) = description.layers
    assert (layer.name, layer.output_shape, layer.neurons) == ("neurons", (4,), 4)
    assert layer.firing_rate == pytest.approx((1 + 1 + 1 + 0.5 + 0.5) / 8)
    assert (layer.silent, layer.saturated) == (0.25, 0.25)
    assert description.synaptic_operations == pytest.approx(4 * 4 / 2 * 3)
    assert (description.samples, description.timesteps) == (2, 4)


def test_a_first_layer_multiplies_images_and_adds_up_spikes_of_each_step():
    model = chain(layers.Dense(8), LIF(threshold=0.3), layers.Dense(3), timesteps=4)
    description = quiet(model, X)
    assert description.first_multiply_adds == 6 * 8
    assert description.dense_multiply_adds == 6 * 8 + 8 * 3
    assert description.parameters == 6 * 8 + 8 + 8 * 3 + 3
    x = np.zeros((2, 4, 6), "float32")
    x[:, :, 0] = 1.0
    spikes = quiet(chain(layers.Dense(8), LIF(), timesteps=4), x)
    assert spikes.synaptic_operations == pytest.approx(4 * 8)
    assert spikes.first_multiply_adds == 0


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Conv2D(6, 3, groups=2), (8, 8, 4), 6 * 6 * 9 * 2 * 6),
        (layers.SeparableConv2D(5, 3), (8, 8, 4), 6 * 6 * (9 * 4 + 4 * 5)),
        (layers.EinsumDense("abc,cde->abde", (None, 2, 5)), (7, 6), 7 * 6 * 2 * 5),
        (layers.EinsumDense("...c,cd->...d", (5,)), (7, 6), 7 * 6 * 5),
    ],
)
def test_multiply_adds_are_those_counted_by_hand(layer, shape, expected):
    """Those of other convolutions are tested with what their inputs feed."""
    x = np.zeros((2, *shape), "float32")
    assert kind_of(layer).multiply_adds(layer, x.shape, layer(x).shape) == expected


def test_layers_with_hidden_matrices_are_listed_as_not_counted():
    inputs = keras.Input((4, 6))
    x = layers.MultiHeadAttention(1, 2, name="attention")(LIF()(inputs), inputs)
    model = rsnn.SpikingModel(keras.Model(inputs, x), timesteps=2)
    x = np.ones((2, 4, 6), "float32")
    for result in (quiet(model, x), rsnn.analysis.energy(model, x)):
        assert result.not_counted == ("attention",)
        assert "Not counted: attention\n" in f"{result}\n"


def test_neurons_with_values_of_their_own_are_not_listed_as_not_counted():
    own = LIF(np.full(8, 0.5), axis=None, learn_decay=True)
    back = Recurrent(LIF(threshold=keras.initializers.Constant(0.5)), layers.Dense(8))
    readout = LeakyReadout(keras.initializers.Constant(0.9), learn_decay=True)
    parts = layers.Dense(8), own, layers.Dense(8), back, layers.Dense(3), readout
    assert quiet(chain(*parts), X).not_counted == ()


def test_dead_layers_are_named_with_advice():
    silent = LIF(threshold=100.0, name="first")
    then = layers.Dense(4), LIF(name="second"), layers.Dense(3)
    description = quiet(chain(layers.Dense(8), silent, *then), X)
    assert [layer.name for layer in description.dead] == ["first", "second"]
    (warning,) = description.warnings
    assert "DEAD: no neuron spikes in first, second." in warning
    assert "lower its threshold, put a BatchNormalization before it" in warning
    assert warning in str(description)


def test_moving_statistics_are_named_first_for_a_dead_layer_after_batch_normalization():
    statistics = {"moving_mean_initializer": keras.initializers.Constant(100.0)}
    between = layers.Reshape((8, 1)), layers.MaxPooling1D(2), layers.Dropout(0.1)
    parts = layers.Dense(8), layers.BatchNormalization(**statistics), *between
    model = chain(*parts, LIF(name="first"), layers.Dense(3))
    (warning,) = quiet(model, X).warnings
    assert "DEAD: no neuron spikes in first." in warning
    assert warning.index("moving statistics") < warning.index("lower the threshold")
    assert "momentum=0.9" in warning
    assert "put a BatchNormalization" not in warning


BROKEN = {"kernel_initializer": keras.initializers.Constant(np.inf)}


@pytest.mark.parametrize(
    ("x", "parts", "cause"),
    [
        (X * np.nan, [layers.Dense(8, name="hidden")], "`x` has values that are NaN"),
        (X, [layers.Dense(8, name="hidden", **BROKEN)], "The weights chain/hidden/ker"),
        (X, [layers.Activation(ops.log)], "`x` and the weights are finite"),
    ],
)
def test_nan_is_named_instead_of_advice_about_dead_layers(x, parts, cause):
    model = chain(*parts, LIF(name="first"), layers.Dense(3))
    (warning,) = quiet(model, x).warnings
    assert warning.startswith("NaN: the currents of first are NaN or infinite.")
    assert cause in warning


def test_nan_after_the_last_neurons_is_named():
    broken = {"bias_initializer": keras.initializers.Constant(np.nan)}
    model = chain(IF(), layers.Dense(3, name="last", **broken))
    warning = quiet(model, np.ones((2, 6), "float32")).warnings[0]
    assert warning.startswith("NaN: the outputs are NaN.")
    assert "The weights chain/last/bias" in warning


ONES = layers.Dense(4, bias_initializer="ones", kernel_initializer="ones")


@pytest.mark.parametrize(
    ("parts", "size", "value", "large", "expected"),
    [
        # A healthy network gets no warning.
        ([IF(), layers.Dense(3)], 6, 0.4, 0.6, []),
        # Almost dead, and saturated.
        (
            [IF(name="rare"), ONES, IF(name="full")],
            100,
            0.0,
            1.0,
            [r"ALMOST DEAD.* in rare\.", r"SATURATED.* in full\."],
        ),
        # Many saturated: a reason to look at the scale of the inputs.
        (
            [IF(name="some"), layers.Dense(3)],
            6,
            0.4,
            255.0,
            [r"MANY SATURATED: at least 25%.* in some\..*Rescaling\(1 / 255\)"],
        ),
    ],
    ids=["healthy", "almost dead and saturated", "many saturated"],
)
def test_layers_that_spike_hardly_ever_or_always_are_named_with_advice(
    parts, size, value, large, expected
):
    x = np.full((4, size), value, "float32")
    x[:, : 2 if size == 6 else 1] = large
    warnings = quiet(chain(*parts, shape=(size,), timesteps=4), x).warnings
    assert len(warnings) == len(expected)
    for warning, pattern in zip(warnings, expected, strict=True):
        assert re.match(pattern, warning, re.DOTALL)


def test_it_prints_what_it_returns_under_the_name_of_the_model(capsys):
    description = describe(chain(LIF(), layers.Dense(3), name="mine"), X)
    printed = capsys.readouterr().out
    assert printed == f"{description}\n"
    assert printed.startswith("mine: 10 samples, 2 time steps")

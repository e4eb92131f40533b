"""Parameters of neurons as arrays and initializers: a value for each channel or neuron,
fixed or learned."""

import functools

import keras
import numpy as np
import pytest
from helpers import chain, response, saved_and_loaded, spiking, to_numpy
from keras import layers
from library_neurons import STEPPING, layer, learned, taken
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import layers as neurons
from keras_ratesnn.layers.parameters import parameters_of

T = 5
LEARNED = {"learn_decay": True, "learn_threshold": True}
ALL = {"decay": [0.3, 0.7], "threshold": [0.6, 0.9], "initial_membrane": [0.3, -0.2]}
HARD = {"reset": "hard", "v_reset": [0.1, -0.3]}
SYNAPSE = {"synaptic_decay": [0.2, 0.6], "learn_synaptic_decay": True}


def recurrent(name, **arguments):
    back = neurons.Scale(0.4, per_channel=True, name="back")
    return neurons.Recurrent(neurons.LIF(**arguments), back, name=name)


def of_library(name):
    """With two values of each parameter, which are learned where they can be."""
    made = layer(name, T)
    names = taken(name, parameters_of(type(made.cell)))
    values = {key: getattr(made, key) for key in names}
    two = {key: [value, 0.6 * value] for key, value in values.items() if value}
    return functools.partial(layer, name, T), {**learned(name), **two}


KINDS = {
    **{name: of_library(name) for name in STEPPING},
    "fixed": (neurons.LIF, {**ALL, **HARD}),
    "delayed": (neurons.LIF, {**ALL, **HARD, **LEARNED, "reset_delay": True}),
    "scaled": (neurons.LIF, {**ALL, **LEARNED, "decay_input": True}),
    "recurrent": (recurrent, {**ALL, **LEARNED}),
    "readout": (
        neurons.LeakyReadout,
        {"decay": [0.8, 0.6], "learn_decay": True, **SYNAPSE},
    ),
}


def results(kinds, gradient, step_mode, channel=None):
    """The `response` of layers on two channels; with a channel, all neurons have its
    values, and only its outputs count."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,))
    outputs = []
    for name in kinds:
        make, arguments = KINDS[name]
        if channel is not None:
            arguments = {
                key: value[channel] if isinstance(value, list) else value
                for key, value in arguments.items()
            }
        outputs.append(make(**arguments, name=name)(inputs))
    network = keras.Model(inputs, outputs)
    model = spiking(network, T, gradient, step_mode=step_mode)
    random = np.random.default_rng(1)
    x = random.normal(0.3, 1.0, (6, T, 2)).astype("float32")
    weights = random.normal(size=(len(kinds), 6, 2)).astype("float32")
    if channel is not None:
        weights[..., 1 - channel] = 0.0
    return response(model, [x], list(weights))


@pytest.mark.parametrize(
    ("gradient", "step_mode", "kinds"),
    [
        (rsnn.gradients.Rate(windows=2), "multi", list(KINDS)),
        ("rate", "single", ["delayed", "recurrent"]),
        ("bptt", "multi", ["delayed", "ALIF", "readout", "scaled"]),
        ("ottt", "multi", ["scaled", "fixed", "ILIF"]),
    ],
    ids=["windows", "rate", "bptt", "ottt"],
)
def test_neurons_with_values_of_their_own_are_those_of_layers_with_one_value(
    gradient, step_mode, kinds
):
    """Outputs, gradients of the input, and of each learned value."""
    outputs, (of_input,), of_values = results(kinds, gradient, step_mode)
    assert np.mean([output != 0.0 for output in outputs]) > 0.05
    assert np.any(of_input, axis=(0, 1)).all()
    for channel in range(2):
        alone = results(kinds, gradient, step_mode, channel)
        for found, expected in zip(outputs, alone[0], strict=True):
            found, expected = found[:, channel], expected[:, channel]
            assert_allclose(found, expected, atol=1e-6)
        found, expected = of_input[..., channel], alone[1][0][..., channel]
        assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        assert of_values.keys() == alone[2].keys()
        for path, values in of_values.items():
            # One value of all neurons has the sum, of the channel that counts.
            expected = np.sum(alone[2][path])
            value = np.ravel(values)[channel]
            assert value == pytest.approx(expected, rel=1e-4, abs=1e-6), path


def test_learned_values_move_and_stay_in_their_ranges_and_all_are_in_float32():
    """Arrays and initializers, for each channel or each neuron, in half precision."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    channels = neurons.LIF(**ALL, **HARD, learn_decay=True)
    single = neurons.CuBaLIF(
        keras.initializers.RandomUniform(0.2, 0.8, seed=1),
        np.array([0.4, 0.9]),
        axis=None,
        learn_threshold=True,
    )
    readout = neurons.LeakyReadout([0.9, 0.5], learn_decay=True, value="last")
    dense = layers.Dense(2, kernel_initializer="ones")
    model = spiking(chain(channels, dense, single, readout, shape=(2,)), T)
    model.compile(keras.optimizers.Adam(0.5), "mse")
    before = [channels.decay, readout.decay, single.threshold]
    x = np.random.default_rng(0).normal(0.5, 1.0, (3, T, 2))
    for _ in range(2):
        model.train_on_batch(x, np.ones((3, 2)))
    after = [channels.decay, readout.decay, single.threshold]
    for old, new in zip(before, after, strict=True):
        assert not np.allclose(old, new)
        assert np.all(new > 0.0)
    assert np.all([channels.decay, readout.decay] < np.ones(2))
    assert {weight.dtype for weight in model.weights} == {"float32"}


def test_a_number_that_is_learned_is_read_and_set():
    layer = neurons.ParametricLIF(0.3, learn_threshold=True)
    assert (layer.decay, layer.threshold) == (0.3, 1.0)
    layer.set_decay(0.4)
    layer(np.zeros((1, 3), "float32"))
    layer.set_threshold(0.6)
    assert layer.get_config()["decay"] == 0.4
    assert (layer.decay, layer.threshold) == (pytest.approx(0.4), pytest.approx(0.6))
    layer.set_decay(0.9)
    assert layer.cell.decay == pytest.approx(0.9)


def test_time_constants_are_spread_evenly_in_their_logarithm_over_all_values():
    expected = 1.0 - 1.0 / np.array([[1.0, 10.0, 100.0], [1e3, 1e4, 1e5]])
    spread = neurons.TimeConstants(1, 1e5)
    assert_allclose(to_numpy(spread((2, 3))), expected, rtol=1e-6)
    again = keras.initializers.deserialize(keras.initializers.serialize(spread))
    assert_array_equal(to_numpy(again((2, 3))), to_numpy(spread((2, 3))))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_decays_of_all_neurons_are_made_of_time_constants_and_kept_in_files(dtype):
    keras.config.set_dtype_policy(dtype)
    spread = neurons.TimeConstants(2, 200)
    of_step = {"decay": spread, "learn_decay": True}
    parts = [
        neurons.LIF(spread),
        neurons.ILIF(3, **of_step),
        neurons.ALIF(adaptation_decay=spread, **of_step),
        neurons.CuBaLIF(synaptic_decay=spread, learn_synaptic_decay=True),
        neurons.LIF(axis=None, **of_step),
        neurons.LeakyReadout(spread),
    ]
    model = spiking(chain(*parts, shape=(3,)), T)
    model.compile("sgd", "mse")
    names = ["decay", "decay", "adaptation_decay", "synaptic_decay", "decay", "decay"]
    for network in (model.network, saved_and_loaded(model).network):
        for found, name in zip(network.layers[1:], names, strict=True):
            assert_allclose(getattr(found, name), [0.5, 0.95, 0.995], rtol=1e-5)
    x = np.random.default_rng(0).normal(0.5, 1.0, (2, T, 3))
    assert np.isfinite(model.train_on_batch(x, np.ones((2, 3))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, 3), "`shortest` must be >= 1. Received: shortest=0.5"),
        ((5, 4), "`longest` must be >= 5.0. Received: longest=4"),
    ],
)
def test_time_constants_are_at_least_a_step_and_the_longest_is_not_the_shorter(
    arguments, message
):
    with pytest.raises(ValueError, match=message):
        neurons.TimeConstants(*arguments)


def test_a_decay_is_not_learned_from_a_time_constant_of_one_step():
    layer = neurons.LIF(neurons.TimeConstants(1, 9), learn_decay=True)
    with pytest.raises(ValueError, match="`decay` must be > 0 and < 1"):
        layer(np.zeros((1, 3), "float32"))

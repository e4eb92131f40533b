"""Membranes and spikes of layers as outputs of a model, beside those of its network."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    both_step_modes,
    naive_lif,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn import analysis
from keras_ratesnn.layers import ILIF, LIF, LeakyReadout, Recurrent, Scale, SlidingPSN

T = 5


def model_and_data(outputs="readout", **kwargs):
    """Neurons of all kinds in a row; the first two are LIF."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = LIF(0.6, threshold=0.8, name="first")(inputs)
    x = LIF(0.5, reset="hard", name="second")(layers.Dense(6, name="between")(x))
    x = Recurrent(ILIF(3, threshold=0.5), Scale(0.3), name="recurrent")(x)
    x = SlidingPSN(2, 0.5, name="parallel")(x)
    if outputs == "readout":
        readout = LeakyReadout(0.5, value="last", name="readout")
        x = layers.Softmax()(readout(layers.Dense(3)(x)))
    else:
        x = {"one": layers.Dense(3)(x), "other": layers.Dense(2)(x)}
    x_data = np.random.default_rng(0).normal(0.5, 1.0, (5, T, 4)).astype("float32")
    return spiking(keras.Model(inputs, x), T, **kwargs), x_data


def lif_by_hand(currents, *args, **kwargs):
    """Spikes and membranes `(batch, T, ...)`."""
    spikes, membranes, _ = naive_lif(np.moveaxis(currents, 1, 0), *args, **kwargs)
    return np.moveaxis(spikes, 0, 1), np.moveaxis(membranes, 0, 1)


@both_step_modes
def test_membranes_and_spikes_of_all_steps_are_predicted_beside_the_outputs(step_mode):
    """In batches, of which the last one is smaller; of a loaded model, too."""
    model, x = model_and_data(step_mode=step_mode)
    names = ["second", "first", "recurrent", "parallel", "readout"]
    observed = analysis.observed(model, names, ["first", "second"])
    found = observed.predict(x, batch_size=3, verbose=0)
    spikes, membranes = found["spikes"], found["membrane"]
    assert_allclose(found["output"], model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    assert sorted(membranes) == sorted(observed.membranes)
    assert sorted(spikes) == ["first", "second"]
    kernel, bias = model.network.get_layer("between").get_weights()
    currents = spikes["first"] @ kernel + bias
    by_hand = {
        "first": lif_by_hand(x, 0.6, 0.8),
        "second": lif_by_hand(currents, 0.5, reset="hard"),
    }
    for name, expected in by_hand.items():
        assert_array_equal(spikes[name], expected[0])
        assert_allclose(membranes[name], expected[1], rtol=1e-4, atol=1e-5)
    last = np.exp(membranes["readout"][:, -1])
    assert_allclose(found["output"], last / last.sum(1, keepdims=True), rtol=1e-5)
    assert membranes["recurrent"].shape == membranes["parallel"].shape == (5, T, 6)
    loaded = saved_and_loaded(observed)
    again = keras.tree.flatten(loaded.predict(x, verbose=0))
    assert_close(again, keras.tree.flatten(found), rtol=1e-5, atol=1e-6)
    spec = loaded.compute_output_spec(keras.Input((T, 4)))
    shapes = [tensor.shape[1:] for tensor in keras.tree.flatten(spec)]
    assert shapes == [array.shape[1:] for array in again]


def test_outputs_keep_their_structure_and_padding_has_membranes_of_zero():
    options = {"mask_value": 9.0, "dtype": "mixed_bfloat16"}
    model, x = model_and_data("dict", return_sequences=True, **options)
    x[1:3, 3:] = 9.0
    observed = analysis.observed(model, ["second"])
    found, expected = observed.predict(x, verbose=0), model.predict(x, verbose=0)
    assert sorted(found) == ["membrane", "output"]
    assert found["output"]["one"].shape == (5, T, 3)
    assert_close(found["output"], expected, rtol=1e-2, atol=1e-2)
    membranes = found["membrane"]["second"]
    assert membranes.dtype == "float32"
    assert_array_equal(membranes[1:3, 3:], 0.0)
    assert np.all(membranes[0] != 0.0)
    # Padding before a sequence.
    both = analysis.observed(model, ["second"], ["first"])
    rolled = both.predict(np.roll(x[1:3], 2, axis=1), verbose=0)
    wanted = np.roll(membranes[1:3], 2, axis=1)
    assert_allclose(rolled["membrane"]["second"], wanted, rtol=1e-2)
    assert_array_equal(rolled["spikes"]["first"][:, :2], 0.0)


def test_a_layer_that_is_called_twice_has_two_names():
    inputs, neurons = keras.Input((4,)), LIF(name="shared")
    model = spiking(keras.Model(inputs, neurons(layers.Dense(4)(neurons(inputs)))), 3)
    x, names = np.ones((2, 4), "float32"), ["shared", "shared (2)"]
    found = to_numpy(analysis.observed(model, names[1:], names)(x))
    spikes, membranes = found["spikes"], found["membrane"]
    assert_array_equal(spikes["shared (2)"], membranes["shared (2)"] >= 1.0)
    assert_array_equal(spikes["shared"], 1.0)
    assert analysis.firing_rates(model, x).layers == tuple(names)


def test_unknown_layers_and_training_are_errors_that_say_what_to_do():
    model, x = model_and_data()
    neurons = "'first', 'second', 'recurrent', 'parallel'"
    for arguments, error, message in (
        ({"membranes": ["third"]}, ValueError, f"be one of {neurons}, 'readout'"),
        ({"spikes": ["readout"]}, ValueError, rf"be one of {neurons}\. Received"),
        ({"membranes": "first"}, TypeError, "be a list of names.*: membranes='first'"),
    ):
        (name,) = arguments
        with pytest.raises(error, match=f"`{name}` must {message}"):
            analysis.observed(model, **arguments)
    observed = analysis.observed(model, ["first"])
    observed.compile("sgd", "mse")
    message = r"An ObservedModel only predicts\..* Train and evaluate the model"
    for use, arguments in (
        (observed.fit, (x, np.ones((5, 3)))),
        (lambda x: observed(x, training=True), (x,)),
    ):
        with pytest.raises(ValueError, match=message):
            use(*arguments)

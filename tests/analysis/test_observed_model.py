"""Membranes and spikes of layers as outputs of a model, beside those of its network."""

import keras
import numpy as np
import pytest
from helpers import naive_lif, saved_and_loaded, spiking, to_numpy
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.layers import ILIF, LIF, LeakyReadout, Recurrent, Scale, SlidingPSN

T = 5


def model_and_data(outputs="readout", **kwargs):
    """Neurons of all kinds in a row; the first two are LIF."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = LIF([0.2, 0.4, 0.6, 0.8], threshold=0.8, name="first")(inputs)
    x = LIF(0.5, reset="hard", name="second")(layers.Dense(6, name="between")(x))
    x = Recurrent(ILIF(3, threshold=0.5), Scale(0.3), name="recurrent")(x)
    x = SlidingPSN(2, 0.5, name="parallel")(x)
    if outputs == "readout":
        x = layers.Softmax()(
            LeakyReadout(0.5, value="last", name="readout")(layers.Dense(3)(x))
        )
    else:
        x = {"one": layers.Dense(3)(x), "other": layers.Dense(2)(x)}
    return spiking(keras.Model(inputs, x), T, **kwargs), np.random.default_rng(
        0
    ).normal(0.5, 1.0, (5, T, 4)).astype("float32")


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_membranes_and_spikes_of_all_steps_are_predicted_beside_the_outputs(step_mode):
    """In batches, of which the last one is smaller; of a loaded model, too."""
    model, x = model_and_data(step_mode=step_mode)
    observed = rsnn.analysis.observed(
        model,
        ["second", "first", "recurrent", "parallel", "readout"],
        ["first", "second"],
    )
    found = observed.predict(x, batch_size=3, verbose=0)
    assert_allclose(found["output"], model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    assert (sorted(found["membrane"]), sorted(found["spikes"])) == (
        sorted(observed.membranes),
        ["first", "second"],
    )
    for neuron, decay in enumerate((0.2, 0.4, 0.6, 0.8)):
        spikes, membranes, _ = naive_lif(np.moveaxis(x[..., neuron], 1, 0), decay, 0.8)
        assert_allclose(
            found["membrane"]["first"][..., neuron], membranes.T, rtol=1e-5, atol=1e-6
        )
        assert_array_equal(found["spikes"]["first"][..., neuron], spikes.T)
    kernel, bias = model.network.get_layer("between").get_weights()
    spikes, membranes, _ = naive_lif(
        np.moveaxis(found["spikes"]["first"] @ kernel + bias, 1, 0), 0.5, reset="hard"
    )
    assert_allclose(
        found["membrane"]["second"], np.moveaxis(membranes, 0, 1), rtol=1e-4, atol=1e-5
    )
    assert_array_equal(found["spikes"]["second"], np.moveaxis(spikes, 0, 1))
    exponentials = np.exp(found["membrane"]["readout"][:, -1])
    assert_allclose(
        found["output"],
        exponentials / exponentials.sum(axis=1, keepdims=True),
        rtol=1e-5,
    )
    assert (
        found["membrane"]["recurrent"].shape
        == found["membrane"]["parallel"].shape
        == (5, T, 6)
    )
    loaded = saved_and_loaded(observed)
    again = loaded.predict(x, verbose=0)
    keras.tree.map_structure(
        lambda new, old: assert_allclose(new, old, rtol=1e-5, atol=1e-6),
        again,
        found,
    )
    spec = keras.tree.map_structure(
        lambda tensor: tuple(tensor.shape[1:]),
        loaded.compute_output_spec(keras.Input((T, 4))),
    )
    assert spec == keras.tree.map_structure(lambda array: array.shape[1:], again)


def test_outputs_keep_their_structure_and_padding_has_membranes_of_zero():
    model, x = model_and_data(
        "dict", mask_value=9.0, return_sequences=True, dtype="mixed_bfloat16"
    )
    x[1:3, 3:] = 9.0
    observed = rsnn.analysis.observed(model, ["second"])
    found, expected = observed.predict(x, verbose=0), model.predict(x, verbose=0)
    assert sorted(found) == ["membrane", "output"]
    assert found["output"]["one"].shape == (5, T, 3)
    for name, output in expected.items():
        assert_allclose(
            np.float32(found["output"][name]), np.float32(output), rtol=1e-2, atol=1e-2
        )
    membranes = found["membrane"]["second"]
    assert membranes.dtype == "float32"
    assert_array_equal(membranes[1:3, 3:], 0.0)
    assert np.all(membranes[0] != 0.0)
    before, of_means = (
        np.roll(x, 2, axis=1),
        rsnn.SpikingModel(model.network, T, mask_value=9.0, dtype="mixed_bfloat16"),
    )
    for each in (model, of_means):
        rolled = rsnn.analysis.observed(each, ["second"], ["first"]).predict(
            before[1:3], verbose=0
        )
        assert_allclose(
            rolled["membrane"]["second"], np.roll(membranes[1:3], 2, axis=1), rtol=1e-2
        )
        assert_array_equal(rolled["spikes"]["first"][:, :2], 0.0)
    observed.timesteps = 3
    assert_allclose(
        observed.predict(x[1:3, :3], verbose=0)["membrane"]["second"],
        membranes[1:3, :3],
        rtol=1e-2,
    )


def test_a_layer_that_is_called_twice_has_two_names():
    inputs, neurons = keras.Input((4,)), LIF(name="shared")
    model = spiking(keras.Model(inputs, neurons(layers.Dense(4)(neurons(inputs)))), 3)
    observed = rsnn.analysis.observed(model, ["shared (2)"], ["shared", "shared (2)"])
    found = to_numpy(observed(np.ones((2, 4), "float32")))
    assert_array_equal(
        found["spikes"]["shared (2)"], found["membrane"]["shared (2)"] >= 1.0
    )
    assert_array_equal(found["spikes"]["shared"], 1.0)


def test_unknown_layers_and_training_are_errors_that_say_what_to_do():
    model, x = model_and_data()
    with pytest.raises(
        ValueError,
        match="`membranes` must be one of 'first', 'second', 'recurrent', 'parallel', "
        "'readout'",
    ):
        rsnn.analysis.observed(model, ["third"])
    with pytest.raises(
        ValueError,
        match=r"`spikes` must be one of 'first', 'second', 'recurrent', 'parallel'\. "
        r"Received",
    ):
        rsnn.analysis.observed(model, spikes=["readout"])
    with pytest.raises(
        TypeError,
        match=r"`membranes` must be a list of names\. Received: membranes='first'",
    ):
        rsnn.analysis.observed(model, "first")
    observed = rsnn.analysis.observed(model, ["first"])
    observed.compile("sgd", "mse")
    for use in (
        observed.fit,
        observed.evaluate,
        lambda x, y: observed(x, training=True),
    ):
        with pytest.raises(
            ValueError,
            match=r"An ObservedModel only predicts\..* Train and evaluate the model",
        ):
            use(x, np.ones((5, 3)))

"""describe: rates, silent and saturated neurons and synaptic operations match counts by
hand; problems give warnings."""

import helpers
import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import describe
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import IF, LIF, LeakyReadout, Recurrent


def quiet(model, x):
    return describe(model, x, verbose=False)


def chain(*steps, shape=(6,)):
    return keras.Sequential([keras.Input(shape), *steps], name="chain")


def test_rates_and_shares_are_counted_over_samples_and_steps():
    # IF neurons with an input of 1, 0.5 and 0 spike at every, at every other and at no
    # step.
    x = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.5, 0.5, 0.0]], "float32")
    model = rsnn.SpikingModel(
        chain(IF(name="neurons"), layers.Dense(3), shape=(4,)), timesteps=4
    )
    (layer,) = quiet(model, x).layers
    assert (layer.name, layer.output_shape, layer.neurons) == ("neurons", (4,), 4)
    assert layer.firing_rate == pytest.approx((1 + 1 + 1 + 0.5 + 0.5) / 8)
    assert (layer.silent, layer.saturated) == (0.25, 0.25)


def test_synaptic_operations_are_spikes_times_fan_out():
    x, _ = helpers.data()
    hidden, neurons, outputs = layers.Dense(8), LIF(threshold=0.3), layers.Dense(3)
    model = rsnn.SpikingModel(chain(hidden, neurons, outputs), timesteps=5)
    description = quiet(model, x)
    currents = np.repeat(to_numpy(hidden(x))[None], 5, axis=0)
    spikes, _, _ = helpers.naive_lif(currents, threshold=0.3)
    assert description.synaptic_operations == pytest.approx(spikes.sum() / len(x) * 3)
    assert description.first_multiply_adds == 6 * 8
    assert description.dense_multiply_adds == 6 * 8 + 8 * 3
    assert description.parameters == 6 * 8 + 8 + 8 * 3 + 3
    assert (description.samples, description.timesteps) == (10, 5)


def test_an_input_with_time_is_counted_at_every_step():
    x = np.zeros((2, 4, 6), "float32")
    x[:, :, 0] = 1.0
    description = quiet(
        rsnn.SpikingModel(chain(layers.Dense(8), LIF()), timesteps=4), x
    )
    assert description.synaptic_operations == pytest.approx(4 * 8)
    assert description.first_multiply_adds == 0


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Dense(5), (6,), 6 * 5),
        (layers.Dense(5), (7, 6), 7 * 6 * 5),
        (layers.Conv2D(5, 3, strides=2, padding="same"), (8, 8, 4), 4 * 4 * 9 * 4 * 5),
        (layers.Conv2D(6, 3, groups=2), (8, 8, 4), 6 * 6 * 9 * 2 * 6),
        (layers.Conv1D(5, 3), (8, 4), 6 * 3 * 4 * 5),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 4), 6 * 6 * 9 * 4 * 2),
        (layers.SeparableConv2D(5, 3), (8, 8, 4), 6 * 6 * (9 * 4 + 4 * 5)),
        (layers.Conv2DTranspose(5, 3, strides=2), (8, 8, 4), 8 * 8 * 9 * 4 * 5),
        (layers.EinsumDense("abc,cd->abd", (None, 5)), (7, 6), 7 * 6 * 5),
        (layers.EinsumDense("abc,cde->abde", (None, 2, 5)), (7, 6), 7 * 6 * 2 * 5),
        (layers.EinsumDense("...c,cd->...d", (5,)), (7, 6), 7 * 6 * 5),
    ],
)
def test_multiply_adds_are_those_counted_by_hand(layer, shape, expected):
    x = np.zeros((2, *shape), "float32")
    assert kind_of(layer).multiply_adds(layer, x.shape, layer(x).shape) == expected


def test_channels_first_convolutions_are_counted_in_the_same_way():
    layer = layers.Conv2D(5, 3, data_format="channels_first")
    layer.build((None, 4, 8, 8))
    assert (
        kind_of(layer).multiply_adds(layer, (2, 4, 8, 8), (2, 5, 6, 6))
        == 6 * 6 * 9 * 4 * 5
    )


def test_layers_with_hidden_matrices_are_listed_as_not_counted():
    inputs = keras.Input((4, 6))
    x = layers.MultiHeadAttention(1, 2, name="attention")(LIF()(inputs), inputs)
    description = quiet(
        rsnn.SpikingModel(keras.Model(inputs, x), timesteps=2),
        np.ones((2, 4, 6), "float32"),
    )
    assert description.not_counted == ("attention",)
    assert "Not counted: attention" in str(description)


def test_neurons_with_values_of_their_own_are_not_listed_as_not_counted():
    own = LIF(np.full(8, 0.5), axis=None, learn_decay=True)
    back = Recurrent(LIF(threshold=keras.initializers.Constant(0.5)), layers.Dense(8))
    readout = LeakyReadout(keras.initializers.Constant(0.9), learn_decay=True)
    network = chain(
        layers.Dense(8), own, layers.Dense(8), back, layers.Dense(3), readout
    )
    description = quiet(rsnn.SpikingModel(network, timesteps=2), helpers.data()[0])
    assert description.not_counted == ()


def test_dead_layers_are_named_with_advice():
    silent = LIF(threshold=100.0, name="first")
    then = layers.Dense(4), LIF(name="second"), layers.Dense(3)
    model = rsnn.SpikingModel(chain(layers.Dense(8), silent, *then), timesteps=2)
    description = quiet(model, helpers.data()[0])
    assert [layer.name for layer in description.dead] == ["first", "second"]
    (warning,) = description.warnings
    assert "DEAD: no neuron spikes in first, second." in warning
    assert "lower its threshold, put a BatchNormalization before it" in warning
    assert warning in str(description)


def test_moving_statistics_are_named_first_for_a_dead_layer_after_batch_normalization():
    normalization = layers.BatchNormalization(name="normalization")
    between = [layers.Reshape((8, 1)), layers.MaxPooling1D(2), layers.Dropout(0.1)]
    network = chain(
        layers.Dense(8), normalization, *between, LIF(name="first"), layers.Dense(3)
    )
    normalization.moving_mean.assign(np.full(8, 100.0))
    (warning,) = quiet(
        rsnn.SpikingModel(network, timesteps=2), helpers.data()[0]
    ).warnings
    assert "DEAD: no neuron spikes in first." in warning
    assert warning.index("moving statistics") < warning.index("lower the threshold")
    assert "momentum=0.9" in warning
    assert "put a BatchNormalization" not in warning


@pytest.mark.parametrize(
    ("where", "cause"),
    [
        ("x", "`x` has values that are NaN"),
        ("weights", "The weights hidden/kernel"),
        ("outputs", "`x` and the weights are finite"),
    ],
)
def test_nan_is_named_instead_of_advice_about_dead_layers(where, cause):
    dense, x = layers.Dense(8, name="hidden"), helpers.data()[0]
    inputs = keras.Input((6,))
    currents = dense(inputs)
    if where == "outputs":
        currents = ops.log(currents - 1e6)
    outputs = layers.Dense(3)(LIF(name="first")(currents))
    model = rsnn.SpikingModel(keras.Model(inputs, outputs), timesteps=2)
    if where == "x":
        x = np.full_like(x, np.nan)
    elif where == "weights":
        dense.kernel.assign(np.full((6, 8), np.inf))
    (warning,) = quiet(model, x).warnings
    assert warning.startswith("NaN: the currents of first are NaN or infinite.")
    assert cause in warning


def test_nan_after_the_last_neurons_is_named():
    last = layers.Dense(3, name="last")
    model = rsnn.SpikingModel(chain(IF(), last), timesteps=2)
    last.bias.assign([0.0, np.nan, 0.0])
    warning = quiet(model, np.ones((2, 6), "float32")).warnings[0]
    assert warning.startswith("NaN: the outputs are NaN.")
    assert "The weights chain/last/bias" in warning


def test_almost_dead_and_saturated_layers_are_named_with_advice():
    x = np.zeros((2, 100), "float32")
    x[:, 0] = 1.0
    network = chain(
        IF(name="rare"),
        layers.Dense(4, bias_initializer="ones", kernel_initializer="ones"),
        IF(name="full"),
        shape=(100,),
    )
    almost, saturated = quiet(rsnn.SpikingModel(network, timesteps=2), x).warnings
    assert almost.startswith("ALMOST DEAD")
    assert "in rare." in almost
    assert saturated.startswith("SATURATED")
    assert "in full." in saturated


def test_many_saturated_neurons_are_a_reason_to_look_at_the_scale_of_the_inputs():
    x = np.full((4, 6), 0.4, "float32")
    x[:, :2] = 255.0
    (warning,) = quiet(
        rsnn.SpikingModel(chain(IF(name="some"), layers.Dense(3)), timesteps=2), x
    ).warnings
    assert warning.startswith("MANY SATURATED: at least 25%")
    assert "in some." in warning
    assert "Rescaling(1 / 255)" in warning


def test_a_healthy_network_gets_no_warning():
    x = np.random.default_rng(0).uniform(0.0, 1.0, (16, 6)).astype("float32")
    assert (
        quiet(rsnn.SpikingModel(chain(IF(), layers.Dense(3)), timesteps=4), x).warnings
        == []
    )


def test_nested_and_shared_neurons_each_have_a_row():
    shared, inputs = LIF(name="shared"), keras.Input((6,))
    nested = [keras.Input((6,)), layers.Dense(6), LIF(name="inner")]
    inner = keras.Sequential(nested, name="block")
    network = keras.Model(inputs, shared(layers.Dense(6)(shared(inner(inputs)))))
    description = quiet(rsnn.SpikingModel(network, timesteps=2), helpers.data()[0])
    names = [layer.name for layer in description.layers]
    assert names == ["block/inner", "shared", "shared"]


def test_it_prints_what_it_returns_under_the_name_of_the_model(capsys):
    model = rsnn.SpikingModel(helpers.mlp(), timesteps=2, name="mine")
    description = describe(model, helpers.data()[0])
    printed = capsys.readouterr().out
    assert printed == f"{description}\n"
    assert printed.startswith("mine: 10 samples, 2 time steps")


def test_the_model_is_not_changed():
    hidden = [layers.Dense(8), layers.BatchNormalization(), LIF(), layers.Dropout(0.5)]
    network = chain(*hidden, layers.Dense(3))
    model = helpers.spiking(network, step_mode="single")
    x, y = helpers.data()
    before = to_numpy(network.get_weights())
    expected = model.predict(x, verbose=0)
    quiet(model, x)
    for old, new in zip(before, to_numpy(network.get_weights()), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    helpers.compiled(model).fit(x, y, verbose=0)


def test_several_inputs_and_half_precision_work():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    network = keras.Model(
        {"a": a, "b": b},
        layers.Dense(3, dtype="bfloat16")(LIF(dtype="bfloat16")(a + b)),
    )
    x = {"a": np.ones((2, 4), "float32"), "b": np.ones((2, 4), "float32")}
    description = quiet(rsnn.SpikingModel(network, timesteps=2), x)
    assert description.layers[0].firing_rate == 1.0
    assert description.samples == 2


@pytest.mark.parametrize("model", [None, layers.Dense(3), helpers.mlp])
def test_other_models_are_an_error(model):
    with pytest.raises(TypeError, match="`model` must be a SpikingModel"):
        describe(model, ops.ones((2, 6)))

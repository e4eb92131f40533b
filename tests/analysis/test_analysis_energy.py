"""Energy: operations are those of a count by hand, spike by spike."""

import helpers
import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import analysis, describe, models
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import (
    ILIF,
    LIF,
    PSN,
    Delay,
    MaskedPSN,
    Recurrent,
    SlidingPSN,
    WSConv2D,
)

T = 4


def normalized(x, filters, strides=1, size=3):
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    # Statistics of an untrained network would leave it silent.
    return layers.BatchNormalization(
        moving_variance_initializer=keras.initializers.Constant(0.05)
    )(x)


def resnet():
    """A stem and two blocks, the second with strides and a projection."""
    inputs = keras.Input((8, 8, 2))
    x = LIF()(normalized(inputs, 4))
    for filters, strides in ((4, 1), (6, 2)):
        y = normalized(LIF()(normalized(x, filters, strides)), filters)
        shortcut = x if strides == 1 else normalized(x, filters, strides, size=1)
        x = LIF()(layers.Add()([y, shortcut]))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def model_and_images():
    images = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 2)).astype("float32")
    return helpers.spiking(resnet(), T), images


def inputs_by_hand(network, images):
    """The inputs of all convolutions and dense layers at all steps, `(T, batch, ...)`,
    with neurons one number at a time."""
    found, values = [], {network.inputs[0].name: np.repeat(images[None], T, axis=0)}
    for layer in network.layers[1:]:
        arguments = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = [values[tensor.name] for tensor in arguments]
        if isinstance(layer, LIF):
            outputs, _, _ = helpers.naive_lif(inputs[0])
        elif isinstance(layer, layers.Add):
            outputs = inputs[0] + inputs[1]
        else:
            outputs = np.stack(
                [to_numpy(layer(step.astype("float32"))) for step in inputs[0]]
            )
        if isinstance(layer, (layers.Conv2D, layers.Dense)):
            found.append((layer, inputs[0], outputs))
        values[layer.output.name] = outputs
    return found


def uses_by_hand(layer, sample, output_shape):
    """How many weights the elements of a sample other than 0 meet: one output after the
    other."""
    if isinstance(layer, layers.Dense):
        return np.count_nonzero(sample) * layer.units
    size, stride = layer.kernel_size[0], layer.strides[0]
    padding = max((output_shape[0] - 1) * stride + size - sample.shape[0], 0)
    padded = np.pad(sample, ((padding // 2, padding - padding // 2),) * 2 + ((0, 0),))
    uses = 0
    for row, column in np.ndindex(*output_shape[:2]):
        field = padded[
            row * stride : row * stride + size, column * stride : column * stride + size
        ]
        uses += np.count_nonzero(field) * layer.filters
    return uses


def count_by_hand(network, images):
    """`(multiply-adds, additions for spikes, multiply-adds without spikes)` of a
    sample, by the names of layers."""
    counts = {}
    for index, (layer, inputs, outputs) in enumerate(inputs_by_hand(network, images)):
        dense = np.prod(outputs.shape[2:-1], dtype=int) * np.prod(layer.kernel.shape)
        if index > 0 and set(np.unique(inputs)) <= {0.0, 1.0}:
            uses = sum(
                uses_by_hand(layer, sample, outputs.shape[2:])
                for step in inputs
                for sample in step
            )
            counts[layer.name] = 0, uses / len(images), dense
        else:
            counts[layer.name] = dense * (T if index > 0 else 1), 0, dense
    return counts


def test_operations_and_joules_are_those_counted_by_hand():
    model, images = model_and_images()
    found = analysis.energy(model, images)
    counts = count_by_hand(model.network, images)
    assert sorted(found.layers) == sorted(counts)
    multiply_adds, accumulates, dense = np.array(
        [counts[name] for name in found.layers], "float64"
    ).T
    assert_allclose(found.multiply_adds, multiply_adds, rtol=1e-9)
    assert_allclose(found.accumulates, accumulates, rtol=0.01)
    assert_allclose(found.multiply_adds_without_spikes, dense, rtol=1e-9)
    assert found.accumulates.sum() > 1000
    operations = multiply_adds.sum() * 4.6e-12 + accumulates.sum() * 0.9e-12
    assert found.spiking.operations.sum() == pytest.approx(operations, rel=0.01)
    assert found.without_spikes.operations.sum() == pytest.approx(dense.sum() * 4.6e-12)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Conv2D(5, 3, strides=2, padding="same"), (8, 7, 4)),
        (layers.Conv2D(5, (2, 3), padding="same", dilation_rate=(1, 2)), (8, 8, 4)),
        (layers.Conv1D(5, 3, padding="causal", dilation_rate=2), (8, 4)),
        (layers.Conv3D(2, 2, padding="same"), (3, 4, 5, 2)),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (8, 8, 4)),
        (layers.Conv2DTranspose(3, 3, strides=2, padding="same"), (7, 6, 2)),
        (layers.Conv1DTranspose(3, 4, strides=2, padding="same"), (7, 2)),
    ],
)
def test_each_input_of_a_convolution_feeds_as_many_synapses_as_its_gradient_says(
    layer, shape
):
    x = np.ones((1, *shape), "float32")
    layer.build(x.shape)
    layer.kernel.assign(np.ones(layer.kernel.shape))
    output_shape = tuple(layer(x).shape)
    (expected,) = helpers.gradient_of(lambda inputs: keras.ops.sum(layer(inputs)), [x])
    fan_out = kind_of(layer).fan_out(layer, x.shape, output_shape)
    assert_allclose(np.broadcast_to(fan_out, shape), expected[0], atol=1e-4)


def test_the_fan_out_of_channels_first_convolutions_is_that_of_channels_last():
    arguments = {"filters": 5, "kernel_size": 3, "strides": 2, "padding": "same"}
    first = layers.Conv2D(**arguments, data_format="channels_first")
    last = layers.Conv2D(**arguments)
    first.build((None, 4, 8, 7))
    last.build((None, 8, 7, 4))
    fan_out = kind_of(first).fan_out(first, (1, 4, 8, 7), (1, 5, 4, 4))
    expected = kind_of(last).fan_out(last, (1, 8, 7, 4), (1, 4, 4, 5))
    assert_array_equal(fan_out, np.moveaxis(expected, -1, 0))


def test_scaled_spikes_are_added_and_averages_multiplied():
    inputs = keras.Input((6, 6, 2))
    spikes = LIF(threshold=0.3)(layers.Conv2D(4, 3)(inputs))
    scaled = WSConv2D(4, 3, name="scaled")(layers.Rescaling(2.74)(spikes))
    averages = layers.Conv2D(4, 2, name="averages")(layers.AveragePooling2D(2)(spikes))
    separable = layers.SeparableConv2D(4, 2, name="separable")(spikes)
    outputs = [layers.Flatten()(x) for x in (scaled, averages, separable)]
    model = helpers.spiking(keras.Model(inputs, outputs), T)
    found = analysis.energy(model, helpers.data(4, (6, 6, 2))[0])
    assert [value > 0 for value in entry(found, "scaled")[:2]] == [False, True]
    for name in ("averages", "separable"):
        assert [value > 0 for value in entry(found, name)[:2]] == [True, False]


@pytest.mark.parametrize(
    ("mode", "synapses"),
    [("int8", layers.EinsumDense("ab,bc->ac", (4,))), ("int4", layers.Dense(4))],
)
def test_quantized_weights_are_added_for_spikes_too(mode, synapses):
    inputs = keras.Input((8,))
    model = helpers.spiking(keras.Model(inputs, synapses(LIF()(inputs))), T)
    images = 2 * helpers.data(16, (8,))[0]
    before = analysis.energy(model, images)
    model.quantize(mode)
    after = analysis.energy(model, images)
    assert before.accumulates.sum() > 0
    assert_array_equal(after.accumulates, before.accumulates)
    assert_array_equal(after.multiply_adds, before.multiply_adds)
    assert_array_equal(after.traffic, before.traffic)


def test_kernels_with_lora_and_of_one_axis_are_added_for_spikes_too():
    inputs = keras.Input((4,))
    spikes = LIF()(layers.Dense(4, kernel_initializer="ones")(inputs))
    scaled = layers.EinsumDense("ab,b->ab", 4, name="scaled")(spikes)
    adapted = layers.Dense(5, name="adapted")
    model = helpers.spiking(keras.Model(inputs, [adapted(spikes), scaled]), T)
    adapted.enable_lora(2)
    found = analysis.energy(model, np.ones((3, 4), "float32"))
    assert found.layers[1:] == ("scaled", "adapted")
    assert found.accumulates.tolist() == [0, 4 * T, 4 * T * 5]
    assert found.multiply_adds.tolist() == [16, 0, 0]
    assert found.traffic.weights.tolist() == [16, 4, 20]


# Spikes that come back, weights in time, and products of spikes


def spikes_of(network, tensors, x):
    """The values of some tensors of a network at all steps, arrays `(batch, T,
    ...)`."""
    model = helpers.spiking(
        keras.Model(network.inputs, tensors), T, return_sequences=True
    )
    return [to_numpy(values) for values in keras.tree.flatten(model(x))]


def entry(found, name):
    """`(multiply-adds, additions for spikes, multiply-adds without spikes)` of a
    layer."""
    index = found.layers.index(name)
    return (
        found.multiply_adds[index],
        found.accumulates[index],
        found.multiply_adds_without_spikes[index],
    )


@pytest.mark.parametrize("neuron", [LIF(), ILIF(levels=3)])
def test_each_spike_that_comes_back_is_added_once_for_each_connection_in_the_next_step(
    neuron,
):
    inputs = keras.Input((5,))
    synapse = layers.Dense(5, name="back", kernel_initializer="ones")
    neurons = Recurrent(neuron, synapse, name="recurrent")(inputs)
    network = keras.Model(inputs, neurons)
    x = np.random.default_rng(0).uniform(0, 1, (3, T, 5)).astype("float32")
    # A sequence with padding at its end, and one in its middle: nothing comes back
    # after it.
    x[0, 2:], x[1, 1] = -1.0, -1.0
    model = rsnn.SpikingModel(network, T, return_sequences=True, mask_value=-1.0)
    spikes, additions = to_numpy(model(x)), 0
    for sample in range(3):
        for t in range(1, T):
            if (x[sample, t] != -1).all() and (x[sample, t - 1] != -1).all():
                for i in range(5):
                    additions += int(spikes[sample, t - 1, i]) * 5
    assert additions > 5
    assert entry(analysis.energy(model, x), "recurrent/back") == (
        0,
        pytest.approx(additions / 3),
        0,
    )
    description = describe(model, x, verbose=False)
    assert description.synaptic_operations == pytest.approx(additions / 3)
    assert (description.parameters, description.not_counted) == (5 * 5 + 5, ())
    if neuron.cell.levels > 1:
        unrolled = analysis.energy(rsnn.unroll(model), x)
        assert unrolled.accumulates.sum() == pytest.approx(additions / 3)


@pytest.mark.parametrize(
    ("neurons", "reaches"),
    [
        (PSN(T), lambda t, j: True),
        (MaskedPSN(T, order=2), lambda t, j: t - 2 < j <= t),
        (MaskedPSN(T, order=2, mask=0.5), lambda t, j: True),
        (SlidingPSN(3), lambda t, j: t - 3 < j <= t),
    ],
)
def test_parallel_neurons_multiply_the_inputs_of_all_steps_that_reach_a_membrane(
    neurons, reaches
):
    inputs = keras.Input((5,))
    model = rsnn.SpikingModel(keras.Model(inputs, neurons(inputs)), T, mask_value=-1.0)
    x = np.ones((2, T, 5), "float32")
    x[1, 3:] = -1.0
    pairs = [*np.ndindex(T, T), *np.ndindex(3, 3)]
    reached = sum(reaches(t, j) for t, j in pairs)
    found = analysis.energy(model, x)
    assert entry(found, neurons.name) == (reached * 5 / 2, 0, 0)
    assert found.not_counted == ()


def test_a_delay_takes_no_operations_and_its_outputs_are_spikes():
    inputs = keras.Input((5,))
    x = Delay(3)(LIF()(inputs))
    model = helpers.spiking(keras.Model(inputs, layers.Dense(2, name="out")(x)), T)
    found = analysis.energy(model, np.ones((2, T, 5), "float32"))
    assert found.layers == ("out",)
    assert found.not_counted == ()
    assert found.multiply_adds.tolist() == [0.0]
    assert found.accumulates[0] > 0


def additions_of_products(left, right):
    """An addition for each spike of `left`, and each value other than 0 of `right` that
    it meets."""
    matrices = left.reshape(-1, *left.shape[-2:]), right.reshape(-1, *right.shape[-2:])
    additions = 0
    for spikes, values in zip(*matrices, strict=True):
        for i, k in np.argwhere(spikes):
            additions += int(spikes[i, k]) * np.count_nonzero(values[k])
    return additions


def attention(block):
    """A network of a block of attention whose neurons fire untrained, and inputs."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 4))

    def firing():
        return LIF(threshold=0.05)

    outputs = block(
        inputs, heads=2, neuron=firing, attention_neuron=firing, name="attention"
    )
    x = np.random.default_rng(0).uniform(-2, 2, (2, T, 6, 4)).astype("float32")
    return keras.Model(inputs, outputs), x


def test_products_of_attention_take_an_addition_for_each_spike_and_value_it_meets():
    network, x = attention(models.spiking_self_attention)
    parts = [
        network.get_layer(f"attention_{part}_order").output
        for part in ("query", "key", "value")
    ]
    queries, keys, values = spikes_of(network, parts, x)
    found = analysis.energy(helpers.spiking(network, T), x)
    first, second = (name for name in found.layers if "matmul" in name)
    dense = T * 2 * 2 * 6 * 2
    for name, expected in (
        (first, additions_of_products(keys, values)),
        (second, additions_of_products(queries, keys @ values)),
    ):
        assert expected > 0
        assert entry(found, name) == (0, pytest.approx(expected / 2), dense)


def test_token_attention_adds_the_spikes_of_queries_and_lets_keys_pass():
    network, x = attention(models.token_attention)
    queries = network.get_layer("attention_query_heads").output
    (queries,) = spikes_of(network, [queries], x)
    found = analysis.energy(helpers.spiking(network, T), x)
    (name,) = (name for name in found.layers if "sum" in name)
    assert entry(found, name) == (0, pytest.approx(np.count_nonzero(queries) / 2), 0)
    assert np.count_nonzero(queries) > 0
    assert not [name for name in found.layers if "chosen" in name]


def test_products_of_numbers_that_are_no_spikes_are_multiply_adds_in_each_step():
    inputs = keras.Input((3, 4))
    spikes = LIF()(inputs)
    x = keras.ops.softmax(spikes) + inputs
    products = keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))
    model = helpers.spiking(keras.Model(inputs, products), T)
    found = analysis.energy(model, helpers.data(2, (T, 3, 4))[0])
    (name,) = (name for name in found.layers if "matmul" in name)
    assert entry(found, name) == (3 * 4 * 3 * T, 0, 3 * 4 * 3 * T)


def test_sums_of_averages_are_taken_once_in_all_slots_of_an_unrolled_step():
    inputs = keras.Input((6, 4))
    averages = layers.AveragePooling1D(3)(ILIF(levels=4)(inputs))
    network = keras.Model(inputs, layers.Dense(2)(keras.ops.sum(averages, axis=1)))
    model = helpers.spiking(network, T)
    x = np.random.default_rng(0).uniform(0, 4, (2, T, 6, 4)).astype("float32")
    expected = analysis.energy(model, x)
    found = analysis.energy(rsnn.unroll(model), x)
    assert expected.accumulates[0] == 2 * 4 * T
    assert_array_equal(found.accumulates, expected.accumulates)
    assert_array_equal(found.multiply_adds, expected.multiply_adds)


def test_sums_of_products_of_integer_spikes_are_numbers_not_spikes():
    x = np.random.default_rng(0).uniform(0, 4, (2, T, 3, 4)).astype("float32")
    found = []
    for normalize in (False, True):
        inputs = keras.Input((3, 4))
        spikes = ILIF(levels=4, decay=0.0, normalize=normalize)(inputs)
        products = keras.ops.matmul(spikes, keras.ops.transpose(spikes, (0, 2, 1)))
        network = keras.Model(
            inputs, layers.Dense(2)(keras.ops.matmul(products, spikes))
        )
        found.append(analysis.energy(helpers.spiking(network, T), x))
        if not normalize:
            queries, scores = spikes_of(network, [spikes, products], x)
    # The scores meet the spikes of the values.
    additions = additions_of_products(
        np.swapaxes(queries, -1, -2), np.swapaxes(scores, -1, -2)
    )
    assert found[0].accumulates.tolist()[1:] == [additions / 2, 0]
    assert found[0].multiply_adds.tolist() == [0, 0, 2 * 3 * 4 * T]
    assert_array_equal(found[0].accumulates, found[1].accumulates)
    assert_array_equal(found[0].multiply_adds, found[1].multiply_adds)

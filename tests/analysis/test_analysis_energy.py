"""Energy: operations are those of a count by hand, spike by spike."""

import keras
import numpy as np
import pytest
from helpers import chain, gradient_of, naive_lif, spiking, to_numpy
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import analysis, describe
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import (
    IF,
    ILIF,
    LIF,
    PSN,
    Delay,
    MaskedPSN,
    Recurrent,
    SlidingPSN,
    WSConv2D,
)
from tests.conversion.test_fold import Halved

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
    return spiking(resnet(), T), images


def inputs_by_hand(network, images):
    """The inputs of all convolutions and dense layers at all steps, `(T, batch, ...)`,
    with neurons one number at a time."""
    found, values = [], {network.inputs[0].name: np.repeat(images[None], T, axis=0)}
    for layer in network.layers[1:]:
        tensors = keras.tree.flatten(layer.input)
        first, *rest = [values[tensor.name] for tensor in tensors]
        if isinstance(layer, LIF):
            outputs, _, _ = naive_lif(first)
        elif isinstance(layer, layers.Add):
            outputs = first + rest[0]
        else:
            steps = [layer(step.astype("float32")) for step in first]
            outputs = np.stack(to_numpy(steps))
        if isinstance(layer, (layers.Conv2D, layers.Dense)):
            found.append((layer, first, outputs))
        values[layer.output.name] = outputs
    return found


def uses_by_hand(layer, sample, output_shape):
    """How many weights the elements of a sample other than 0 meet: one output after the
    other."""
    if isinstance(layer, layers.Dense):
        return np.count_nonzero(sample) * layer.units
    size, stride = layer.kernel_size[0], layer.strides[0]
    padding = max((output_shape[0] - 1) * stride + size - sample.shape[0], 0)
    around = padding // 2, padding - padding // 2
    padded = np.pad(sample, (around, around, (0, 0)))
    uses = 0
    for row, column in np.ndindex(*output_shape[:2]):
        top, left = row * stride, column * stride
        field = padded[top : top + size, left : left + size]
        uses += np.count_nonzero(field) * layer.filters
    return uses


def test_operations_joules_and_traffic_are_those_counted_by_hand():
    model, images = model_and_images()
    found = analysis.energy(model, images)
    by_hand = inputs_by_hand(model.network, images)
    assert sorted(found.layers) == sorted(layer.name for layer, *_ in by_hand)
    for index, (layer, inputs, outputs) in enumerate(by_hand):
        at, shape = found.layers.index(layer.name), outputs.shape[2:]
        traffic = analysis.Traffic(*(values[at] for values in found.traffic))
        runs = (0, T, T - 1) if index else (1, 1, T - 1)
        assert (traffic.static, traffic.runs, traffic.kept) == runs
        weights, read = np.prod(layer.kernel.shape), np.prod(inputs.shape[2:])
        assert (traffic.weights, traffic.outputs) == (weights, np.prod(shape))
        dense = np.prod(shape[:-1], dtype=int) * weights
        assert found.dense_multiply_adds[at] == dense
        if index == 0 or not set(np.unique(inputs)) <= {0.0, 1.0}:
            assert entry(found, layer.name) == (dense * (T if index else 1), 0, dense)
            assert (traffic.spikes, traffic.values) == (0, read)
            assert traffic.nonzero == dense
            continue
        samples = inputs.reshape(-1, *inputs.shape[2:])
        additions = sum(uses_by_hand(layer, sample, shape) for sample in samples)
        additions = pytest.approx(additions / len(images), rel=0.01)
        assert entry(found, layer.name) == (0, additions, dense)
        assert (traffic.spikes, traffic.values) == (read, 0)
        most = uses_by_hand(layer, np.ones(inputs.shape[2:]), shape)
        assert traffic.most_accumulates == most
        ever = [uses_by_hand(layer, sample, shape) for sample in inputs.any(axis=0)]
        assert traffic.nonzero == pytest.approx(np.mean(ever), rel=0.01)
        rate = found.accumulates[at] / T / most
        assert found.firing_rates[at] == pytest.approx(rate)
    multiplied, added = found.multiply_adds.sum(), found.accumulates.sum()
    assert added > 1000
    operations = pytest.approx(multiplied * 4.6e-12 + added * 0.9e-12)
    assert found.spiking.operations.sum() == operations
    without_spikes = found.dense_multiply_adds.sum() * 4.6e-12
    assert found.dense.operations.sum() == pytest.approx(without_spikes)


SAME = {"padding": "same"}


@pytest.mark.parametrize(
    ("layer", "shape", "multiply_adds"),
    [
        (layers.Conv2D(5, 3, strides=2, **SAME), (8, 7, 4), 16 * 36 * 5),
        (
            layers.Conv2D(5, (2, 3), dilation_rate=(1, 2), **SAME),
            (8, 8, 4),
            64 * 24 * 5,
        ),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, **SAME), (8, 8, 4), 64 * 36 * 2),
        (layers.Conv2DTranspose(3, 3, strides=2, **SAME), (7, 6, 2), 42 * 18 * 3),
    ],
)
def test_each_input_of_a_convolution_feeds_as_many_synapses_as_its_gradient_says(
    layer, shape, multiply_adds
):
    x = np.ones((1, *shape), "float32")
    layer.build(x.shape)
    layer.kernel.assign(np.ones(layer.kernel.shape))
    (expected,) = gradient_of(lambda inputs: ops.sum(layer(inputs)), [x])
    kind, shapes = kind_of(layer), (x.shape, tuple(layer(x).shape))
    fan_out = kind.fan_out(layer, *shapes)
    assert_allclose(np.broadcast_to(fan_out, shape), expected[0], atol=1e-4)
    assert kind.multiply_adds(layer, *shapes) == multiply_adds


def test_the_fan_out_of_channels_first_convolutions_is_that_of_channels_last():
    first, last = (
        layers.Conv2D(5, 3, strides=2, **SAME, data_format=data_format)
        for data_format in ("channels_first", "channels_last")
    )
    first.build((None, 4, 8, 7))
    last.build((None, 8, 7, 4))
    kind, shapes = kind_of(first), ((1, 4, 8, 7), (1, 5, 4, 4))
    expected = kind.fan_out(last, (1, 8, 7, 4), (1, 4, 4, 5))
    assert_array_equal(kind.fan_out(first, *shapes), np.moveaxis(expected, -1, 0))
    assert kind.multiply_adds(first, *shapes) == 16 * 36 * 5


def quantized(layer, mode):
    """Quantised after it is built, as by `model.quantize`."""

    def call(spikes):
        outputs = layer(spikes)
        layer.quantize(mode)
        return outputs

    return call


def delayed(spikes):
    """By a step, after which the last spikes would arrive. That takes no operations."""
    delay = Delay(3)
    outputs = delay(spikes)
    delay.weights[0].assign(np.zeros(5))
    return layers.Dense(2)(outputs)


def adapted(spikes):
    layer = layers.Dense(5)
    outputs = layer(spikes)
    layer.enable_lora(2)
    return outputs


def transposed(x):
    return ops.transpose(x, (0, 2, 1))


def product_of_numbers(spikes):
    x = ops.softmax(spikes) + spikes
    return ops.matmul(x, transposed(x))


def product_with_inputs(spikes):
    """The inputs are the same at each step."""
    inputs = spikes._keras_history.operation.input
    return ops.matmul(spikes, transposed(inputs))


def products_of_spikes(spikes):
    """Their sums are no spikes, and meet the spikes of the values."""
    products = ops.matmul(spikes, transposed(spikes))
    return layers.Dense(2)(ops.matmul(products, spikes))


def sum_of_averages(spikes):
    sums = ops.sum(layers.AveragePooling1D(3)(spikes), axis=1)
    return layers.Dense(2)(sums)


@pytest.mark.parametrize(
    ("synapses", "shape", "multiply_adds", "accumulates", "weights"),
    [
        (lambda x: WSConv2D(4, 3)(x * 2.74), (6, 6, 2), 0, 16 * 72 - 4, 72),
        (
            lambda x: layers.Conv2D(4, 2)(layers.AveragePooling2D(2)(x)),
            (6, 6, 2),
            4 * 32,
            0,
            32,
        ),
        (quantized(layers.EinsumDense("ab,bc->ac", (3,)), "int8"), (8,), 0, 21, 24),
        (adapted, (4,), 0, 3 * 5, 20),
        (layers.EinsumDense("ab,b->ab", 4), (4,), 0, 3, 4),
        (delayed, (5,), 0, 4 * 2 * (T - 1) / T, 10),
        (product_of_numbers, (3, 4), 3 * 4 * 3, 0, 0),
        (product_with_inputs, (3, 4), 0, 2 * 2 + 3 * 3 * 3, 0),
    ],
)
def test_weights_are_added_for_spikes_and_multiplied_by_other_numbers(
    synapses, shape, multiply_adds, accumulates, weights
):
    network = chain(IF(), synapses, layers.Flatten(), shape=shape)
    model = spiking(network, T)
    # All neurons but the first spike at each step.
    x = np.ones((2, *shape), "float32")
    x[(slice(None), *[0] * len(shape))] = 0.0
    found = analysis.energy(model, x)
    assert found.not_counted == ()
    counts = found.multiply_adds, found.accumulates, found.traffic.weights
    expected = [[multiply_adds * T], [accumulates * T], [weights]]
    assert [count.tolist() for count in counts] == expected


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("synapses", "multiply_adds", "accumulates"),
    [
        # Spikes of a column meet its values other than 0, and 21 spikes 3 sums each.
        (products_of_spikes, [0, 0, 2 * 3 * 4], [7 * 2 + 5 * 2 + 3 * 2 + 6 * 3, 63, 0]),
        (sum_of_averages, [0, 2 * 4], [4, 0]),
    ],
)
def test_integer_spikes_are_added_one_by_one_and_their_sums_are_numbers(
    synapses, multiply_adds, accumulates, normalize
):
    neurons = ILIF(levels=4, decay=0.0, normalize=normalize)
    model = spiking(chain(neurons, synapses, shape=(3, 4)), T)
    # [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4, 0, 1]]
    x = np.arange(12, dtype="float32").reshape(1, 3, 4) % 5
    models = [model]
    if synapses is sum_of_averages:
        # In all substeps of an unrolled step they are taken once.
        models.append(rsnn.deploy.unroll(model))
    for model in models:
        found = analysis.energy(model, x)
        assert found.multiply_adds.tolist() == np.multiply(multiply_adds, T).tolist()
        assert found.accumulates.tolist() == np.multiply(accumulates, T).tolist()


# Spikes that come back, and weights in time


def entry(found, name):
    """`(multiply-adds, additions for spikes, multiply-adds without spikes)` of a
    layer."""
    index = found.layers.index(name)
    return (
        found.multiply_adds[index],
        found.accumulates[index],
        found.dense_multiply_adds[index],
    )


def test_a_spike_that_comes_back_is_added_for_each_connection_in_the_next_step():
    synapse = layers.Dense(5, name="back", kernel_initializer="ones")
    neurons = Recurrent(ILIF(levels=3), synapse, name="recurrent")
    x = np.random.default_rng(0).uniform(0, 1, (3, T, 5)).astype("float32")
    # Padding at the end of a sequence, and in the middle of one: nothing comes back
    # after it.
    x[0, 2:], x[1, 1] = -1.0, -1.0
    network = chain(neurons, shape=(5,))
    model = rsnn.SpikingModel(network, T, return_sequences=True, mask_value=-1.0)
    counts = (x != -1.0).all(axis=2)
    comes_back = counts[:, 1:] & counts[:, :-1]
    spikes = to_numpy(model(x))[:, :-1].sum(axis=2)
    additions = 5 * np.sum(spikes * comes_back) / 3
    assert additions > 2
    entries = entry(analysis.energy(model, x), "recurrent/back")
    assert entries == (0, pytest.approx(additions), 0)
    description = describe(model, x, verbose=False)
    assert description.synaptic_operations == pytest.approx(additions)
    assert (description.parameters, description.not_counted) == (5 * 5 + 5, ())
    unrolled = analysis.energy(rsnn.deploy.unroll(model), x)
    assert unrolled.accumulates.sum() == pytest.approx(additions)


def test_weights_of_which_nothing_is_known_are_not_counted():
    neurons = Recurrent(IF(), Halved(6, name="back"), name="recurrent")
    model = spiking(chain(neurons, layers.Dense(2)), T, "bptt")
    found = analysis.energy(model, np.ones((2, 6), "float32"))
    assert found.not_counted == ("recurrent/back",)


@pytest.mark.parametrize(
    ("neurons", "pairs"),
    [
        (PSN(T), 16 + 9),
        (MaskedPSN(T, order=2), 7 + 5),
        (MaskedPSN(T, order=2, mask=0.5), 16 + 9),
        (SlidingPSN(3), 9 + 6),
    ],
)
def test_parallel_neurons_multiply_the_inputs_of_all_steps_that_reach_a_membrane(
    neurons, pairs
):
    """Pairs of steps, in sequences of four and of three steps."""
    model = spiking(chain(neurons, shape=(5,)), T, mask_value=-1.0)
    x = np.ones((2, T, 5), "float32")
    x[1, 3:] = -1.0
    found = analysis.energy(model, x)
    assert entry(found, neurons.name) == (pairs * 5 / 2, 0, 0)
    assert found.not_counted == ()

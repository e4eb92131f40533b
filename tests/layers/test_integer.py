"""Integer neurons: the authors' runs, a loop over single numbers, and what counts
spikes. That the written derivative is that of the step is in tests/testing."""

import keras
import numpy as np
import pytest
from helpers import chain, data, gradient_of, spiking, to_numpy
from keras import layers, ops
from next_cases import NextCase
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import analysis
from keras_ratesnn.layers import ILIF


def normalized_vgg(settings):
    x = inputs = keras.Input((8, 8, 3))
    for index, filters in enumerate((4, 8), 1):
        x = layers.Conv2D(filters, 3, padding="same", name=f"conv{index}")(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"bn{index}")(x)
        x = ILIF(settings["levels"], normalize=True, name=f"n{index}")(x)
        x = layers.AveragePooling2D(2)(x)
    return keras.Model(inputs, layers.Dense(5, name="c")(layers.Flatten()(x)))


def test_training_agrees_with_ilif_nodes_of_spikingjelly():
    case = NextCase("ilif_mlp")
    names = "levels", "decay", "threshold", "detach_reset"
    arguments = {name: case.settings[name] for name in names}
    model = case.dense_model(lambda x, synapse, at: ILIF(**arguments)(synapse(x)))
    case.assert_agrees(model)


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_training_agrees_with_multispike_of_sdt_v3(gradient):
    case = NextCase("sfa_vgg")
    network = normalized_vgg(case.settings)
    case.assert_training_agrees("auto", network=network, gradient=gradient)


def naive(currents, levels, decay, threshold, initial_membrane):
    """Counts of one neuron after the other, in Python's numbers, whose `round` rounds
    halves to even."""
    counts = np.zeros(currents.shape)
    for sample, neuron in np.ndindex(len(currents), currents.shape[2]):
        membrane = initial_membrane
        for t in range(currents.shape[1]):
            membrane = decay * membrane + float(currents[sample, t, neuron])
            count = round(min(max(membrane / threshold, 0.0), levels))
            membrane -= threshold * count
            counts[sample, t, neuron] = count
    return counts


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_spikes_are_those_of_a_loop_over_single_numbers(policy):
    """Multiples of 1/4, so that many membranes are halves, which are rounded to even in
    every precision."""
    arguments = {"levels": 3, "decay": 0.5, "threshold": 0.5, "initial_membrane": 0.125}
    x = np.random.default_rng(0).integers(-4, 12, (3, 5, 4)).astype("float32") / 4
    neurons = ILIF(**arguments, dtype=policy)
    network = chain(neurons, shape=(4,), dtype=policy.removeprefix("mixed_"))
    found = spiking(network, 5, return_sequences=True)(x)
    expected = naive(x, **arguments)
    assert set(np.unique(expected)) == {0.0, 1.0, 2.0, 3.0}
    assert_array_equal(to_numpy(ops.cast(found, "float32")), expected)


def test_normalised_spikes_are_divided_by_the_levels_and_so_is_their_gradient():
    x, _ = data(4, (5, 6))
    found = []
    for normalize in (False, True):
        neurons = ILIF(4, normalize=normalize, detach_reset=False)
        model = spiking(chain(neurons), 5, "bptt")
        (gradient,) = gradient_of(
            lambda x, model=model: ops.sum(model(x, training=True)), [4 * x]
        )
        assert gradient.any()
        found.append((to_numpy(model(4 * x)), gradient))
    for counts, shares in zip(*found, strict=True):
        assert_allclose(4 * shares, counts, rtol=1e-6)


@pytest.mark.parametrize("detach_reset", [True, False])
def test_the_gradient_is_open_for_membranes_of_zero_and_of_all_levels(detach_reset):
    neurons = ILIF(4, threshold=0.5, detach_reset=detach_reset)
    x = np.array([[-0.01, 0.0, 1.0, 2.0, 2.01]], "float32")
    (gradient,) = gradient_of(lambda x: ops.sum(neurons(x)), [x])
    assert_array_equal(gradient, [[0.0, 2.0, 2.0, 2.0, 0.0]])


def test_halves_are_rounded_to_the_even_integer_or_up():
    currents = np.array([[-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 0.7, 1.2]], "float32")
    even, up = (
        to_numpy(ILIF(decay=0.0, round_half_up=half_up)(currents))
        for half_up in (False, True)
    )
    assert_array_equal(even, [[0, 0, 2, 2, 4, 4, 1, 1]])
    assert_array_equal(up, [[0, 1, 2, 3, 4, 4, 1, 1]])


def test_analysis_counts_the_spikes_of_each_neuron():
    model = spiking(chain(ILIF(4, name="neurons"), shape=(3,)), 2)
    x = np.array([[[1.0, 2.0, 9.0], [0.0, 0.4, 4.0]]], "float32")
    found = analysis.raster(model, x, "neurons", 3).spikes
    assert_array_equal(found, [[[1, 2, 4], [0, 0, 4]]])
    (layer,) = rsnn.describe(model, x, verbose=False).layers
    seen = layer.firing_rate, layer.silent, layer.saturated
    assert seen == pytest.approx((11 / 6, 0.0, 1 / 3))


def test_nir_refuses_integer_spikes():
    pytest.importorskip("nir")
    model = spiking(chain(ILIF(4, name="neurons")), 2)
    message = "layer 'neurons' of type ILIF: its neurons can be .*LIF.* only"
    with pytest.raises(ValueError, match=message):
        rsnn.deploy.export_nir(model, "never.nir")

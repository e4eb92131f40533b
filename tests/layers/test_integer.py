"""Integer neurons: the authors' runs, a loop over single numbers, the rate gradient
against BPTT, and what counts spikes."""

import keras
import numpy as np
import pytest
import reference_networks
from helpers import (
    assert_close,
    data,
    gradient_of,
    loss_and_gradients,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import analysis
from keras_ratesnn.layers import ILIF


class Case(reference_networks.Case):
    """A run of the authors' program: `ilif_mlp` of SpikingJelly's ILIFNode, `sfa_vgg`
    of SDT-V3's MultiSpike."""

    folder = reference_networks.FOLDER / "next"

    def model(self, gradient="bptt", **arguments):
        network = {"mlp": mlp, "vgg": normalized_vgg}[self.settings["net"]](
            self.settings
        )
        model = rsnn.SpikingModel(
            network, self.settings["timesteps"], gradient, **arguments
        )
        for variable in model.trainable_variables:
            variable.assign(self.arrays[f"weight/{self.name_of(variable.path)}"])
        return model

    @staticmethod
    def name_of(path):
        layer, kind = path.split("/")[-2:]
        return f"{layer}.{reference_networks.THEIR_KINDS[kind]}"


def mlp(settings):
    neurons = {
        name: settings[name]
        for name in ("levels", "decay", "threshold", "detach_reset")
    }
    inputs = keras.Input((12,))
    x = ILIF(**neurons, name="n1")(layers.Dense(16, name="a")(inputs))
    x = ILIF(**neurons, name="n2")(layers.Dense(16, name="b")(x))
    return keras.Model(inputs, layers.Dense(5, name="c")(x))


def normalized_vgg(settings):
    x = inputs = keras.Input((8, 8, 3))
    for index, filters in enumerate((4, 8), 1):
        x = layers.Conv2D(filters, 3, padding="same", name=f"conv{index}")(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"bn{index}")(x)
        x = ILIF(settings["levels"], normalize=True, name=f"n{index}")(x)
        x = layers.AveragePooling2D(2)(x)
    return keras.Model(inputs, layers.Dense(5, name="c")(layers.Flatten()(x)))


@pytest.mark.parametrize(
    ("name", "gradient", "step_mode"),
    [
        ("ilif_mlp", "bptt", "multi"),
        ("ilif_mlp", "bptt", "single"),
        ("sfa_vgg", "bptt", "multi"),
        ("sfa_vgg", "rate", "multi"),
    ],
)
def test_training_agrees_with_the_authors_programs(name, gradient, step_mode):
    Case(name).assert_training_agrees(
        jit_compile="auto", gradient=gradient, step_mode=step_mode
    )


def test_spikes_and_the_gradient_of_the_input_agree_with_the_authors_program():
    case = Case("ilif_mlp")
    model = case.model()
    for name in ("n1", "n2"):
        np.testing.assert_array_equal(
            analysis.raster(model, case.x, name, 16).spikes,
            case.arrays[f"spikes/{name}"].astype("float32"),
        )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    (gradient,) = gradient_of(lambda x: loss(case.y, model(x, training=True)), [case.x])
    np.testing.assert_allclose(gradient, case.arrays["grad_x"], rtol=1e-3, atol=1e-6)


def naive(currents, levels, decay, threshold, initial_membrane):
    """Counts of one neuron after the other, in Python's numbers, whose `round` rounds
    halves to even."""
    counts = np.zeros(currents.shape)
    for index in np.ndindex(currents.shape[1:]):
        membrane = initial_membrane
        for t, current in enumerate(currents[(slice(None), *index)]):
            membrane = decay * membrane + float(current)
            counts[(t, *index)] = round(min(max(membrane / threshold, 0.0), levels))
            membrane -= threshold * counts[(t, *index)]
    return counts


@pytest.mark.parametrize(
    ("policy", "step_mode"),
    [("float32", "multi"), ("mixed_bfloat16", "single"), ("mixed_float16", "stream")],
)
def test_spikes_are_those_of_a_loop_over_single_numbers(policy, step_mode):
    """Multiples of 1/4, so that many membranes are halves, which are rounded to even in
    every precision."""
    arguments = {"levels": 3, "decay": 0.5, "threshold": 0.5, "initial_membrane": 0.125}
    x = np.random.default_rng(0).integers(-4, 12, (3, 5, 4)).astype("float32") / 4
    inputs = keras.Input((4,), dtype=policy.removeprefix("mixed_"))
    network = keras.Model(inputs, ILIF(**arguments, dtype=policy)(inputs))
    expected = np.moveaxis(naive(np.moveaxis(x, 1, 0), **arguments), 0, 1)
    assert set(np.unique(expected)) == {0.0, 1.0, 2.0, 3.0}
    if step_mode == "stream":
        model = spiking(network, 5)
        found = np.stack(
            [to_numpy(ops.cast(model.step(x[:, t]), "float32")) for t in range(5)],
            axis=1,
        )
    else:
        model = spiking(network, 5, step_mode=step_mode, return_sequences=True)
        found = to_numpy(ops.cast(model(x), "float32"))
    np.testing.assert_array_equal(found, expected)


def test_normalised_spikes_are_divided_by_the_levels_and_so_is_their_gradient():
    x, _ = data(4, (5, 6))
    inputs = keras.Input((6,))
    found = []
    for normalize in (False, True):
        model = spiking(
            keras.Model(
                inputs, ILIF(4, normalize=normalize, detach_reset=False)(inputs)
            ),
            5,
            "bptt",
        )
        found.append(
            (
                to_numpy(model(4 * x)),
                gradient_of(
                    lambda x, model=model: ops.sum(model(x, training=True)), [4 * x]
                )[0],
            )
        )
    np.testing.assert_allclose(4 * found[1][0], found[0][0], rtol=1e-6)
    np.testing.assert_allclose(4 * found[1][1], found[0][1], rtol=1e-6)
    assert np.any(found[0][1])


@pytest.mark.parametrize("detach_reset", [True, False])
def test_the_gradient_is_open_for_membranes_of_zero_and_of_all_levels(detach_reset):
    neurons = ILIF(4, threshold=0.5, detach_reset=detach_reset)
    x = np.array([[-0.01, 0.0, 1.0, 2.0, 2.01]], "float32")
    (gradient,) = gradient_of(lambda x: ops.sum(neurons(x)), [x])
    np.testing.assert_array_equal(gradient, [[0.0, 2.0, 2.0, 2.0, 0.0]])


def test_one_level_spikes_above_half_the_threshold():
    neurons = ILIF(1, threshold=0.5)
    np.testing.assert_array_equal(
        to_numpy(neurons(np.array([[0.25, 0.26, 0.5, 3.0]], "float32"))),
        [[0.0, 1.0, 1.0, 1.0]],
    )


@keras.saving.register_keras_serializable(package="tests_integer")
class GenericCell(rsnn.layers.ILIFCell):
    def step(self, inputs, state):
        return super().step(inputs, state)


@pytest.mark.parametrize("detach_reset", [True, False])
def test_the_written_derivative_is_the_generic_one(detach_reset):
    """A subclass whose step is its own is differentiated in forward mode."""
    x, y = data(6, (4, 5))
    arguments = {"levels": 3, "normalize": True, "detach_reset": detach_reset}
    by_hand = of_network([ILIF(**arguments)], "rate", 4, x, y)
    assert_same(
        of_network([rsnn.layers.Neuron(GenericCell(**arguments))], "rate", 4, x, y),
        by_hand,
    )


def of_network(neurons, gradient, timesteps, x, y):
    """The gradients of a network with these neurons between Dense layers, the same
    weights for every call."""
    initial = iter(range(9))
    x_in = inputs = keras.Input((5,))
    for layer in neurons:
        x_in = type(layer).from_config(layer.get_config())(
            dense(8, next(initial))(x_in)
        )
    model = spiking(
        keras.Model(inputs, dense(3, next(initial))(x_in)), timesteps, gradient
    )
    return loss_and_gradients(model, 2 * x, y)[1]


def dense(units, seed):
    return layers.Dense(
        units,
        kernel_initializer=keras.initializers.RandomNormal(0.1, 0.5, seed=seed),
        name=f"dense{seed}",
    )


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert all(map(np.any, expected.values()))


@pytest.mark.parametrize("normalize", [False, True])
def test_analysis_counts_spikes_and_one_addition_for_each(normalize):
    inputs = keras.Input((3,))
    x = ILIF(4, normalize=normalize, name="neurons")(inputs)
    model = spiking(keras.Model(inputs, layers.Dense(2, name="dense")(x)), 2)
    x = np.array(
        [[[1.0, 2.0, 9.0], [0.0, 0.4, 4.0]]], "float32"
    )  # Counts 1, 2, 4; 0, 0, 4.
    expected = np.array([[[1, 2, 4], [0, 0, 4]]], "float32")
    np.testing.assert_array_equal(
        analysis.raster(model, x, "neurons", 3).spikes, expected
    )
    np.testing.assert_array_equal(
        analysis.membranes(model, x, "neurons", 3).spikes, expected
    )
    np.testing.assert_allclose(
        analysis.firing_rates(model, x).by_step, [[7 / 3, 4 / 3]], rtol=1e-6
    )
    found = rsnn.describe(model, x, verbose=False)
    (layer,) = found.layers
    assert (layer.firing_rate, layer.silent, layer.saturated) == pytest.approx(
        (11 / 6, 0.0, 1 / 3)
    )
    assert (
        found.synaptic_operations,
        found.energy.accumulates.tolist(),
        found.energy.multiply_adds.tolist(),
    ) == (
        22,
        [22],
        [0],
    )


def test_sums_of_integer_spikes_are_additions_and_averages_are_not():
    inputs = keras.Input((4, 1))
    spikes = ILIF(4)(inputs)
    x = layers.Dense(2, use_bias=False, name="sum")(layers.Add()([spikes, spikes]))
    y = layers.Dense(2, use_bias=False, name="average")(
        layers.AveragePooling1D(2)(spikes)
    )
    model = spiking(keras.Model(inputs, [x, y]), 1)
    found = analysis.energy(
        model, np.array([[[[1.0], [2.0], [4.0], [0.0]]]], "float32")
    )
    of_layer = dict(
        zip(
            found.layers,
            zip(found.accumulates, found.multiply_adds, strict=True),
            strict=True,
        )
    )
    assert of_layer == {"sum": (28.0, 0.0), "average": (0.0, 4.0)}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"levels": 0}, ValueError, "`levels` must be 1 or more. Received: levels=0"),
        (
            {"levels": 2.0},
            TypeError,
            "`levels` must be an integer. Received: levels=2.0",
        ),
        ({"decay": 1.1}, ValueError, "`decay` must be >= 0 and <= 1"),
        ({"initial_membrane": 0.6}, ValueError, "`initial_membrane` must be <= 0.5"),
        (
            {"reset": "hard"},
            TypeError,
            "ILIF has no argument `reset`. Received: reset='hard'. Neurons of integer "
            "spikes",
        ),
        (
            {"surrogate": "atan"},
            TypeError,
            "ILIF has no argument `surrogate`. Received: surrogate='atan'. The "
            "derivative",
        ),
        (
            {"learn_threshold": True},
            TypeError,
            "ILIF has no argument `learn_threshold`. .* BatchNormalization",
        ),
        ({"decay_input": True}, TypeError, "ILIF has no argument `decay_input`"),
    ],
)
def test_an_argument_that_is_not_possible_is_an_error(arguments, error, message):
    with pytest.raises(error, match=message):
        ILIF(**arguments)


def test_nir_refuses_integer_spikes():
    pytest.importorskip("nir")
    inputs = keras.Input((3,))
    model = spiking(
        keras.Model(inputs, ILIF(4, name="neurons")(layers.Dense(3)(inputs))), 2
    )
    with pytest.raises(
        ValueError,
        match="layer 'neurons' of type ILIF: it emits up to 4 spikes in a step",
    ):
        rsnn.export_nir(model, "never.nir")


def test_halves_are_rounded_to_the_even_integer_or_up():
    currents = np.array([[-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 0.7, 1.2]], "float32")
    even, up = (
        to_numpy(ILIF(decay=0.0, round_half_up=half_up)(currents))
        for half_up in (False, True)
    )
    np.testing.assert_array_equal(even, [[0, 0, 2, 2, 4, 4, 1, 1]])
    np.testing.assert_array_equal(up, [[0, 1, 2, 3, 4, 4, 1, 1]])

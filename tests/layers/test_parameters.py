"""Parameters of neurons as arrays and initialisers: a value for each channel or neuron,
fixed or learned."""

import keras
import numpy as np
import pytest
from helpers import spiking, training_results
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import layers as neurons

LEARNED = {"learn_decay": True, "learn_threshold": True}
ALL = {"decay": [0.3, 0.7], "threshold": [0.6, 0.9], "initial_membrane": [0.3, -0.2]}
HARD = {"reset": "hard", "v_reset": [0.1, -0.3]}


def recurrent(layer, name):
    return neurons.Recurrent(
        layer, neurons.Scale(0.4, per_channel=True, name="back"), name=name
    )


KINDS = {
    "LIF": (neurons.LIF, {**ALL, **LEARNED, "decay_input": True}),
    "fixed": (neurons.LIF, {**ALL, **HARD}),
    "delayed": (neurons.LIF, {**ALL, **HARD, **LEARNED, "reset_delay": True}),
    "ILIF": (neurons.ILIF, {**ALL, "levels": 3, "learn_decay": True}),
    "recurrent": (
        lambda name, **arguments: recurrent(neurons.LIF(**arguments), name),
        {**ALL, **LEARNED},
    ),
    "ALIF": (
        neurons.ALIF,
        {
            **ALL,
            **HARD,
            **LEARNED,
            "adaptation": [0.5, 1.5],
            "adaptation_decay": [0.5, 0.9],
        },
    ),
    "CuBaLIF": (
        neurons.CuBaLIF,
        {**ALL, **LEARNED, "synaptic_decay": [0.2, 0.6], "learn_synaptic_decay": True},
    ),
    "readout": (
        neurons.LeakyReadout,
        {
            "decay": [0.8, 0.6],
            "synaptic_decay": [0.3, 0.5],
            "learn_decay": True,
            "learn_synaptic_decay": True,
        },
    ),
}


def arrays(kind, **more):
    made, arguments = KINDS[kind]
    return made(**arguments, **more)


def of_neuron(kind, index, name):
    """The same layer for one neuron, with numbers."""
    made, arguments = KINDS[kind]
    return made(
        **{
            key: value[index] if isinstance(value, list) else value
            for key, value in arguments.items()
        },
        name=name,
    )


def networks(kinds):
    """Two networks with the same weights: of neurons with values of their own, and of
    as many layers of one neuron."""
    inputs = keras.Input((4,))
    found = []
    for apart in (False, True):
        outputs = []
        for number, kind in enumerate(kinds):
            currents = [
                layers.Dense(1, name=f"dense_{number}_{index}")(inputs)
                for index in range(2)
            ]
            if apart:
                outputs += [
                    of_neuron(kind, index, f"{number}_{index}")(current)
                    for index, current in enumerate(currents)
                ]
            else:
                outputs.append(
                    arrays(kind, name=str(number))(layers.Concatenate()(currents))
                )
        if "readout" in kinds:
            # What follows a readout follows the end of time.
            of_readouts = 2 if apart else 1
            outputs = [
                *map(neurons.TimeMean(), outputs[:-of_readouts]),
                *outputs[-of_readouts:],
            ]
        network = keras.Model(inputs, layers.Concatenate()(outputs))
        found.append(network)
    together, apart = found
    random = np.random.default_rng(0)
    for one, other in zip(
        *(
            [layer for layer in network.layers if isinstance(layer, layers.Dense)]
            for network in found
        ),
        strict=True,
    ):
        kernel = random.normal(0.4, 0.8, (4, 1))
        for layer in (one, other):
            layer.set_weights([kernel, np.full(1, 0.1)])
    return together, apart


def data(timesteps=5):
    random = np.random.default_rng(1)
    return random.normal(0.3, 1.0, (6, timesteps, 4)).astype("float32")


@pytest.mark.parametrize(
    ("gradient", "step_mode", "kinds"),
    [
        (rsnn.gradients.Rate(windows=2), "multi", list(KINDS)),
        ("rate", "single", ["delayed", "recurrent"]),
        ("bptt", "multi", ["delayed", "ALIF", "readout"]),
        ("ottt", "multi", ["LIF", "fixed", "ILIF"]),
    ],
    ids=["windows", "rate", "bptt", "ottt"],
)
def test_neurons_with_values_of_their_own_are_as_many_layers_of_one_neuron(
    gradient, step_mode, kinds
):
    """Outputs, gradients of the weights before, and of each learned value."""
    x, y = (
        data(),
        np.random.default_rng(2).normal(size=(6, 2 * len(kinds))).astype("float32"),
    )
    found, expected = [], []
    for network, values in zip(networks(kinds), (found, expected), strict=True):
        model = spiking(network, 5, gradient, step_mode=step_mode)
        _, gradients, outputs = training_results(
            model, x, y, lambda y, outputs: ops.mean(y * outputs)
        )
        values += [outputs, gradients]
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    assert np.mean(found[0] != 0) > 0.05
    learned = 0
    for path, of_values in found[1].items():
        layer, _, rest = path.partition("/")
        if layer.startswith("dense"):
            np.testing.assert_allclose(
                of_values, expected[1][path], rtol=1e-4, atol=1e-6, err_msg=path
            )
            continue
        learned += np.count_nonzero(of_values)
        of_layers = [
            expected[1][f"{layer}_{index}/{rest}"].item() for index in range(2)
        ]
        np.testing.assert_allclose(
            np.ravel(of_values), of_layers, rtol=1e-4, atol=1e-6, err_msg=path
        )
    assert learned > len(kinds)


def all_kinds(step_mode="multi", **more):
    """All kinds on an image, with an array or an initialiser for each channel or each
    neuron."""
    inputs = x = keras.Input((3, 4, 2))
    x = neurons.LIF(**{**ALL, **HARD}, learn_decay=True, name="channels", **more)(x)
    x = neurons.CuBaLIF(
        keras.initializers.RandomUniform(0.2, 0.8, seed=1),
        np.linspace(0.4, 0.9, 24).reshape(3, 4, 2),
        synaptic_decay=keras.initializers.Constant(0.3),
        axis=None,
        learn_threshold=True,
        name="neurons",
        **more,
    )(layers.Conv2D(2, 1, kernel_initializer="ones", **more)(x))
    x = neurons.LeakyReadout(
        [0.9, 0.5, 0.7], learn_decay=True, value="last", name="readout", **more
    )(layers.Dense(3, **more)(layers.Flatten(**more)(x)))
    return spiking(keras.Model(inputs, x), 5, step_mode=step_mode)


def images():
    return np.random.default_rng(0).normal(0.5, 1.0, (3, 5, 3, 4, 2)).astype("float32")


def values_of(model):
    named = {layer.name: layer for layer in model.network.layers}
    return [
        *(
            named["channels"].decay,
            named["channels"].threshold,
            named["channels"].v_reset,
            named["channels"].initial_membrane,
        ),
        *(
            named["neurons"].decay,
            named["neurons"].threshold,
            named["neurons"].synaptic_decay,
            named["readout"].decay,
        ),
    ]


@pytest.mark.parametrize(
    ("step_mode", "policy"), [("multi", "float32"), ("single", "mixed_bfloat16")]
)
def test_learned_values_move_and_stay_in_their_ranges_and_all_are_in_float32(
    step_mode, policy
):
    model = all_kinds(step_mode, dtype=policy)
    model.compile(keras.optimizers.Adam(0.5), "mse")
    before = values_of(model)
    for _ in range(2):
        model.train_on_batch(images(), np.ones((3, 3)))
    moved = [
        not np.allclose(new, old)
        for new, old in zip(values_of(model), before, strict=True)
    ]
    assert moved == [True, False, False, False, False, True, False, True]
    decays, *_, thresholds, _, of_readout = values_of(model)
    assert all(((value > 0) & (value < 1)).all() for value in (decays, of_readout))
    assert (thresholds > 0).all()
    layers_with_values = [
        layer for layer in model.network.layers if hasattr(layer, "set_decay")
    ]
    assert {
        weight.dtype for layer in layers_with_values for weight in layer.weights
    } == {"float32"}


def test_channels_are_on_any_axis():
    layer = neurons.LIF([0.2, 0.4, 0.6], keras.initializers.Constant(0.7), axis=1)
    layer(keras.Input((3, 4, 5)))
    assert [tuple(weight.shape) for weight in layer.weights] == [(1, 3, 1, 1)] * 2
    np.testing.assert_allclose(layer.decay, [0.2, 0.4, 0.6], rtol=1e-6)
    with pytest.raises(ValueError, match="is incompatible with the layer: expected"):
        layer(keras.Input((4, 4, 5)))


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


def built(**arguments):
    layer = neurons.LIF(**arguments)
    layer(np.zeros((1, 3), "float32"))
    return layer


def of_thresholds(thresholds):
    size = len(thresholds)
    neuron = neurons.LIF(threshold=thresholds, name="lif")
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(size), neuron, layers.Dense(2)]
    )


# What is made, and the error and message that are expected.
ERRORS = {
    "text": (
        lambda: neurons.LIF(decay=["a"]),
        TypeError,
        "`decay` must be a real number, an array of real numbers or a Keras",
    ),
    "range": (
        lambda: neurons.LIF(threshold=[1.0, 0.0]),
        ValueError,
        r"`threshold` must be > 0\. Received: threshold=0\.0",
    ),
    "learned": (
        lambda: neurons.LIF(decay=[0.5, 0.0], learn_decay=True),
        ValueError,
        "`decay` must be > 0 and < 1",
    ),
    "drawn": (
        lambda: built(decay=keras.initializers.Constant(1.5)),
        ValueError,
        "`decay` must be >= 0 and < 1",
    ),
    "reset": (
        lambda: neurons.LIF(threshold=[1.0, 2.0], reset="hard", v_reset=[0.0, 2.5]),
        ValueError,
        "`v_reset` must be < 2",
    ),
    "soft": (
        lambda: neurons.LIF(v_reset=[0.0, 0.1]),
        ValueError,
        r"`v_reset` must be 0\.0 with reset=\"soft\"",
    ),
    "channels": (
        lambda: built(decay=[0.1, 0.2]),
        ValueError,
        "`decay` must have a value for each of the 3 channels",
    ),
    "shape": (
        lambda: built(decay=np.full((2, 3), 0.5)),
        ValueError,
        "`decay` must be an array that broadcasts to a sample",
    ),
    "axis": (
        lambda: built(decay=keras.initializers.Constant(0.5), axis=3),
        ValueError,
        "`axis` must be an input axis of",
    ),
    "fixed": (
        lambda: built().set_decay(0.5),
        AttributeError,
        "`decay` of LIFCell 'cell' is fixed when it is created",
    ),
    "set shape": (
        lambda: built(learn_decay=True).set_decay([0.1, 0.2]),
        ValueError,
        "`decay` must be a number, or an array",
    ),
    "set range": (
        lambda: built(learn_decay=True).set_decay(1.0),
        ValueError,
        "`decay` must be > 0 and < 1",
    ),
    "parallel": (
        lambda: neurons.SlidingPSN(2, threshold=[1.0, 2.0]),
        TypeError,
        "`threshold` must be a real number",
    ),
    "stabilizer": (
        lambda: neurons.LIF(threshold=[1.0, 2.0], threshold_stabilizer=True),
        ValueError,
        "`threshold_stabilizer=True` sets one threshold for all neurons",
    ),
    "integers": (
        lambda: rsnn.integer(
            rsnn.quantize_aware(spiking(of_thresholds([0.5, 1.0, 1.5]), 4))
        ),
        ValueError,
        "layer 'lif' of type LIF: its neurons have a threshold each, and integers one "
        "for a layer",
    ),
    "calibration": (
        lambda: rsnn.spikify(
            keras.Sequential(
                [
                    keras.Input((3,)),
                    layers.Dense(3, "relu", kernel_initializer="ones", name="hidden"),
                    layers.Dense(2),
                ]
            ),
            timesteps=4,
            neuron=lambda: neurons.IF([1.0, 2.0, 3.0]),
            calibrate=np.ones((4, 3), "float32"),
            verbose=False,
        ),
        ValueError,
        "needs one threshold. Received: neurons 'hidden_neuron' with a threshold each",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_needs_other_values_is_an_error_that_says_so(name):
    make, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        make()

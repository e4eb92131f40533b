"""ALIF and CuBaLIF neurons match those of other libraries: spikes at every step, and
BPTT gradients.

`make_reference_neurons.py` creates the cases with Sinabs and snnTorch.
"""

import pathlib

import keras
import numpy as np
import pytest
from helpers import data, gradient_of, spiking, to_numpy
from keras import ops

import keras_ratesnn as rsnn

FILES = sorted((pathlib.Path(__file__).parents[1] / "reference_neurons").glob("*.npz"))
LAYERS = {"alif": rsnn.layers.ALIF, "cuba": rsnn.layers.CuBaLIF}
ARRAYS = ("inputs", "weights", "spikes", "gradient")


def test_all_cases_exist():
    assert len(FILES) == 5


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_spikes_and_gradients_are_those_of_other_libraries(file):
    case = dict(np.load(file))
    inputs, weights, spikes, gradient = (case.pop(name) for name in ARRAYS)
    neurons = LAYERS[file.stem.split("_")[0]](
        **{name: value.item() for name, value in case.items()}
    )
    given = keras.Input(inputs.shape[2:])
    weights = ops.convert_to_tensor(weights)
    model = spiking(
        keras.Model(given, neurons(given)),
        inputs.shape[1],
        "bptt",
        return_sequences=True,
    )
    np.testing.assert_array_equal(to_numpy(model(inputs)), spikes)
    (found,) = gradient_of(
        lambda x: ops.sum(model(x, training=True) * weights), [inputs]
    )
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "plain",
    [
        lambda **reset: rsnn.layers.ALIF(adaptation=0.0, **reset),
        lambda **reset: rsnn.layers.CuBaLIF(synaptic_decay=0.0, **reset),
    ],
    ids=["ALIF", "CuBaLIF"],
)
def test_without_their_extensions_they_are_lif_neurons(plain):
    x, _ = data(4, (7, 6))
    inputs = keras.Input((6,))
    neurons = [layer(reset="hard", v_reset=-0.2) for layer in (plain, rsnn.layers.LIF)]
    found, expected = (
        spiking(keras.Model(inputs, layer(inputs)), 7, return_sequences=True)(x)
        for layer in neurons
    )
    np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))


@pytest.mark.parametrize(
    ("layer", "argument", "value"),
    [
        ("ALIF", "adaptation_decay", 1.0),
        ("ALIF", "adaptation", -0.1),
        ("ALIF", "decay", 1.0),
        ("CuBaLIF", "synaptic_decay", 1.0),
    ],
)
def test_an_argument_out_of_range_is_an_error(layer, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be >= 0"):
        getattr(rsnn.layers, layer)(**{argument: value})

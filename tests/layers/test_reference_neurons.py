"""ALIF neurons match those of Sinabs: spikes at every step, and BPTT gradients.

`make_reference_neurons.py` creates the cases.
"""

import pathlib

import numpy as np
import pytest
from helpers import chain, gradient_of, spiking, to_numpy
from keras import ops

import keras_ratesnn as rsnn

FILES = sorted((pathlib.Path(__file__).parents[1] / "reference_neurons").glob("*.npz"))
ARRAYS = ("inputs", "weights", "spikes", "gradient")


def test_all_cases_exist():
    assert len(FILES) == 3


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_spikes_and_gradients_are_those_of_sinabs(file):
    case = dict(np.load(file))
    inputs, weights, spikes, gradient = (case.pop(name) for name in ARRAYS)
    arguments = {name: value.item() for name, value in case.items()}
    weights = ops.convert_to_tensor(weights)
    network = chain(rsnn.layers.ALIF(**arguments), shape=inputs.shape[2:])
    model = spiking(network, inputs.shape[1], "bptt", return_sequences=True)
    np.testing.assert_array_equal(to_numpy(model(inputs)), spikes)
    (found,) = gradient_of(
        lambda x: ops.sum(model(x, training=True) * weights), [inputs]
    )
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-5)

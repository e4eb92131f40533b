"""Neurons step by step: cells, and networks outside of a model, against a loop over
single numbers in float64. Their gradients are in tests/gradients/test_eligibility.py,
networks in tests/contract/test_drawn.py."""

import helpers
import keras
import numpy as np
import pytest
from helpers import dyadic, naive_lif, to_numpy
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, PSN, LIFCell, MaskedPSN

STEPS = 6
# With these numbers, multiples of 1/16 are exact in every precision.
NEURONS = [
    {"decay": 0.0, "threshold": 1.0},
    {"decay": 0.5, "threshold": 2.5},
    {"decay": 0.0, "threshold": 0.75, "reset": "hard", "v_reset": -1.0},
    {"decay": 0.5, "threshold": 1.5, "reset": "hard", "v_reset": 0.5},
    {"decay": 0.5, "threshold": 1.0, "reset_delay": True},
    {
        "decay": 0.5,
        "threshold": 0.5,
        "reset": "hard",
        "v_reset": -0.25,
        "decay_input": True,
        "reset_delay": True,
    },
]
POLICIES = ["float32", "mixed_bfloat16", "mixed_float16", "float64"]


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_a_cell_is_the_naive_loop_in_every_precision(neuron, policy):
    """From rest, at the threshold too; the membrane is in float32 at least."""
    currents = dyadic((STEPS, 3, 5), high=4.0)
    # At the threshold, be the input scaled by 1/2 or not.
    currents[0, 0, 0] = neuron["threshold"]
    currents[0, 0, 1] = 2 * neuron["threshold"]
    spikes, membranes, states = naive_lif(currents, **neuron)
    assert np.any(membranes == neuron["threshold"])
    cell, state = LIFCell(dtype=policy, **neuron), None
    for t in range(STEPS):
        found, state = cell(ops.convert_to_tensor(currents[t], "float32"), state)
        membrane = state["membrane"] if cell.reset_delay else state
        assert_array_equal(to_numpy(ops.cast(found, "float32")), spikes[t])
        assert_array_equal(to_numpy(membrane), states[t])
        if policy.startswith("mixed"):
            assert keras.backend.standardize_dtype(found.dtype) == cell.compute_dtype
            assert keras.backend.standardize_dtype(membrane.dtype) == "float32"


@pytest.mark.parametrize(
    "neurons",
    [
        LIF(),
        LIF(threshold_stabilizer=True),
        PSN(1, 0.5),
        MaskedPSN(1, 1, 0.5),
    ],
    ids=str,
)
def test_a_network_outside_a_model_advances_one_step_from_rest(neurons):
    network = helpers.chain(keras.layers.Dense(8), neurons, keras.layers.Dense(3))
    x, _ = helpers.data()
    expected = rsnn.SpikingModel(network, 1, "bptt").predict(x, verbose=0)
    assert expected.any()
    for _ in range(2):
        found = network.predict(x, verbose=0)
        assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,), (3, 2, 5)])
def test_a_layer_takes_any_rank(shape):
    currents = dyadic((4, *shape))
    spikes = LIF()(ops.convert_to_tensor(currents, "float32"))
    assert_array_equal(to_numpy(spikes), currents >= 1.0)
    assert LIF().compute_output_shape((None, *shape)) == (None, *shape)

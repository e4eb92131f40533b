"""Networks of integers: the same integers as two independent simulators, and as float
networks whose numbers are exact."""

import pathlib

import keras
import numpy as np
import pytest
from helpers import assert_close
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.integers import _steps
from keras_ratesnn.integers._arrays import KerasArrays
from tests.integers.drawn import SEEDS, SHAPE, T, draw, sums
from tests.integers.numpy_arrays import NumPyArrays
from tests.integers.simulated import simulate

CASES = pathlib.Path(__file__).parents[1] / "reference" / "integer"
BOTH = pytest.mark.parametrize("arrays", [KerasArrays, NumPyArrays])


def all_steps(plan, x, arrays):
    """The outputs of all layers over time, `(batch, T, ...)`, and the last
    membranes."""
    kernels = {
        name: arrays.kernel(kernel) for name, kernel in _steps.kernels_of(plan).items()
    }
    temporal = np.ndim(x) == len(plan.input_shape) + 2
    batch = _steps.Batch(plan, arrays.constant(x), arrays, temporal, kernels)
    outputs = {layer.name: [] for layer in plan.layers}
    for t in range(plan.timesteps):
        batch.advance(t)
        for name, steps in outputs.items():
            steps.append(np.asarray(ops.convert_to_numpy(batch.outputs[name])))
    return {name: np.stack(steps, 1) for name, steps in outputs.items()}, {
        name: np.asarray(ops.convert_to_numpy(state["membrane"]))
        for name, state in batch.state.items()
    }


@BOTH
@pytest.mark.parametrize("case", sorted(path.stem for path in CASES.glob("*.npz")))
def test_the_cases_of_another_simulator_give_every_integer(case, arrays):
    plan, expected = (
        rsnn.load_integers(CASES / f"{case}.npz").plan,
        np.load(CASES / f"{case}.npz"),
    )
    outputs, membranes = all_steps(plan, expected["x"], arrays)
    for name, membrane in membranes.items():
        assert_array_equal(outputs[name], expected[f"spikes/{name}"])
        assert_array_equal(membrane, expected[f"membrane/{name}"])
    logits = outputs[plan.layers[-1].name]
    assert_array_equal(logits, expected["logits_of_steps"])
    assert_array_equal(logits.sum(1), expected["logits"])


def frames(seed, count, time=False, largest=256):
    shape = (count, T, *SHAPE) if time else (count, *SHAPE)
    return np.random.default_rng(seed).integers(0, largest, shape, "uint8")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drawn_network_gives_the_integers_of_a_slow_simulator(seed):
    chip = rsnn.integer(
        draw(seed),
        [None, "int4", "ternary"][seed % 3],
        membrane_bits=[16, 12, 20][seed % 3],
        verbose=False,
    )
    x = frames(seed, 2, time=bool(seed % 2))
    spikes, membranes, logits = simulate(chip.plan, x)
    for arrays in (KerasArrays, NumPyArrays):
        outputs, found = all_steps(chip.plan, x, arrays)
        for name, expected in spikes.items():
            assert_array_equal(outputs[name], expected)
            assert_array_equal(found[name], membranes[name])
        assert_array_equal(outputs[chip.plan.layers[-1].name], logits)
    assert_array_equal(chip.integer_logits(x, batch_size=1), logits.sum(1))


def test_a_sum_of_currents_of_very_unlike_units_spikes_as_in_training():
    model, x = sums(), np.random.default_rng(0).integers(0, 256, (100, 600), "uint8")
    chip = rsnn.integer(model, membrane_bits=24, verbose=False)
    assert_close(
        {name: chip.layer_outputs(x)[name] for name in spikes_of(model, x)},
        spikes_of(model, x),
        rtol=0,
    )
    _, membranes, logits = simulate(chip.plan, x)
    assert len(set(chip.plan.of("of_sums").facts["shift"])) == 3
    for arrays in (KerasArrays, NumPyArrays):
        outputs, found = all_steps(chip.plan, x, arrays)
        assert_array_equal(found["of_sums"], membranes["of_sums"])
        assert_array_equal(outputs[chip.plan.layers[-1].name], logits)


def spikes_of(model, x):
    """The spikes of all neuron layers of a model over time, as it emits them."""
    neurons = [
        layer for layer in model.network.layers if isinstance(layer, rsnn.layers.Neuron)
    ]
    watched = keras.Model(
        model.network.inputs, {layer.name: layer.output for layer in neurons}
    )
    found = rsnn.SpikingModel(watched, T, return_sequences=True)(x.astype("float32"))
    return {
        layer.name: np.rint(
            ops.convert_to_numpy(found[layer.name]) / layer.cell.spike_size
        )
        for layer in neurons
    }


@pytest.mark.runs_once
@pytest.mark.parametrize("seed", [0, 2, 4, 8, 12, 14, 16, 18, 22, 25, 26, 29])
def test_a_drawn_network_whose_floats_are_exact_spikes_as_its_integers_do(seed):
    model, x = draw(seed, exact=True), frames(seed, 4, time=bool(seed % 2))
    chip = rsnn.integer(model, membrane_bits=24, verbose=False)
    outputs, _ = all_steps(chip.plan, x, NumPyArrays)
    expected = spikes_of(model, x)
    assert_close(outputs, expected, rtol=0)
    assert sum(spikes.mean() for spikes in expected.values()) > 0.02
    assert_allclose(chip.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-4)

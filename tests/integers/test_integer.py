"""Networks of integers: the same integers as two independent simulators, and as float
networks whose numbers are exact."""

import pathlib

import keras
import numpy as np
import pytest
from helpers import assert_close, to_numpy
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from tests.core import inside
from tests.integers.drawn import SEEDS, SHAPE, T, draw, integers, sums
from tests.integers.simulated import simulate

CASES = pathlib.Path(__file__).parents[1] / "reference" / "integer"


def all_steps(chip, x):
    """The outputs of all layers over time, `(batch, T, ...)`, and the last
    membranes."""
    membranes = inside.last_membranes(chip, x)
    return chip.layer_outputs(x), to_numpy(membranes)


@pytest.mark.parametrize("case", sorted(path.stem for path in CASES.glob("*.npz")))
def test_the_cases_of_another_simulator_give_every_integer(case):
    path = CASES / f"{case}.npz"
    chip, expected = rsnn.deploy.load_integers(path), np.load(path)
    outputs, membranes = all_steps(chip, expected["x"])
    for name, membrane in membranes.items():
        assert_array_equal(outputs[name], expected[f"spikes/{name}"])
        assert_array_equal(membrane, expected[f"membrane/{name}"])
    logits = outputs[chip.plan.layers[-1].name]
    assert_array_equal(logits, expected["logits_of_steps"])
    assert_array_equal(logits.sum(1), expected["logits"])


def frames(seed, count, time=False, largest=256):
    shape = (count, T, *SHAPE) if time else (count, *SHAPE)
    return np.random.default_rng(seed).integers(0, largest, shape, "uint8")


def check_against_simulator(chip, x):
    spikes, membranes, logits = simulate(chip.plan, x)
    outputs, last_membranes = all_steps(chip, x)
    last = chip.plan.layers[-1].name
    assert_close(outputs, {**spikes, last: logits}, rtol=0)
    assert_close(last_membranes, membranes, rtol=0)
    assert_array_equal(chip.integer_logits(x, batch_size=1), logits.sum(1))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drawn_network_gives_the_integers_of_a_slow_simulator(seed):
    weights, bits = [(None, 16), ("int4", 12), ("ternary", 20)][seed % 3]
    chip = integers(draw(seed), weights, bits)
    check_against_simulator(chip, frames(seed, 2, time=bool(seed % 2)))


def test_a_sum_of_currents_of_very_unlike_units_spikes_as_in_training():
    model, x = sums(), np.random.default_rng(0).integers(0, 256, (100, 600), "uint8")
    chip = integers(model, membrane_bits=24)
    assert_close(chip.layer_outputs(x), spikes_of(model, x), rtol=0)
    check_against_simulator(chip, x[:20])
    assert len(set(chip.plan.of("of_sums").facts["shift"])) == 3


def spikes_of(model, x):
    """The spikes of all neuron layers of a model over time, as it emits them."""
    network, kind = model.network, rsnn.layers.Neuron
    neurons = [layer for layer in network.layers if isinstance(layer, kind)]
    tensors = {layer.name: layer.output for layer in neurons}
    watched = keras.Model(network.inputs, tensors)
    watched = rsnn.SpikingModel(watched, T, return_sequences=True)
    values = to_numpy(watched(x.astype("float32")))
    return {n.name: np.rint(values[n.name] / n.cell.spike_size) for n in neurons}


# Seeds that together draw everything.
@pytest.mark.runs_once
@pytest.mark.parametrize("seed", [2, 5, 9, 11, 22, 32, 37])
def test_a_drawn_network_whose_floats_are_exact_spikes_as_its_integers_do(seed):
    model, x = draw(seed, exact=True), frames(seed, 4, time=bool(seed % 2))
    chip = integers(model, membrane_bits=24)
    expected = spikes_of(model, x)
    assert_close(chip.layer_outputs(x), expected, rtol=0)
    assert sum(spikes.mean() for spikes in expected.values()) > 0.02
    logits = model.predict(x, verbose=0)
    assert_allclose(chip.predict(x, verbose=0), logits, atol=1e-4)

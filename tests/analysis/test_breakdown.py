"""The breakdown of energy: joules and crossovers are those of a count by hand."""

import dataclasses
import functools

import numpy as np
import pytest
from helpers import chain, spiking
from keras import layers
from numpy.testing import assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import analysis
from keras_ratesnn.analysis import Costs
from keras_ratesnn.layers import IF, ILIF, LIF, PSN, Recurrent, TimeMean
from tests.analysis.test_analysis_energy import T, model_and_images

pytestmark = pytest.mark.runs_once

INT8 = Costs.int8()


def dense(inputs, outputs, timesteps):
    # Neurons spike where pixels are 1.
    parts = IF(), layers.Dense(outputs), IF()
    return spiking(chain(*parts, shape=(inputs,)), timesteps)


def pixels(rate, *shape):
    """A sample of 0 and 1, which are 1 at this rate."""
    x = np.zeros(np.prod(shape), "float32")
    x[: round(rate * x.size)] = 1.0
    return np.random.default_rng(0).permutation(x).reshape(1, *shape)


def crossover_of_dense(n, m, steps, bits, nonzero=1.0, passes=1):
    """The formula of docs/analysis.md, for weights of 8 bits, and the energies that it
    is made of."""
    multiply, add, bit = 0.2e-12, 0.1e-12, 20e-12 / 64
    # A synapse adds and reads 8 bits for a spike. At each step n inputs of 1 bit,
    # between steps m membranes of 16, are written and read.
    spike_cost = add + 8 * bit
    steps_cost = 2 * (steps * n * 1 + (steps - 1) * m * 16) * bit
    # A pass multiplies by `bits`, reads the weights once, and inputs of `bits` are
    # written and read.
    synapse = add + multiply * bits / 8 + 8 * bit
    dense = passes * (nonzero * n * m * synapse + 2 * n * bits * bit)
    crossover = (dense - steps_cost) / (steps * n * m * spike_cost)
    return crossover, dense, spike_cost, steps_cost


@pytest.mark.on_each_backend
@pytest.mark.parametrize(("passes", "n"), [(1, 400), (5, 40)])
def test_the_crossover_of_a_dense_layer_is_that_of_the_formula(passes, n):
    """The dense network of one that reads frames runs for each."""
    size = n, m, steps, bits = n, 64, 5, 3
    expected = crossover_of_dense(*size, passes=passes)
    crossover, without, spike_cost, steps_cost = expected
    rates = (crossover - 0.005, crossover + 0.005) if passes == 1 else (0.3,)
    for rate in rates:
        x = pixels(rate, *[steps] * (passes > 1), n)
        found = analysis.energy(dense(n, m, steps), x, INT8)
        spikes = x.sum() * steps / passes
        spent = pytest.approx(spikes * m * spike_cost + steps_cost)
        assert found.firing_rate == pytest.approx(x.mean())
        assert found.total == found.spiking.total == spent
        assert found.quantized.activation_bits == bits
        assert found.quantized_total == found.quantized.total
        assert found.quantized.total == pytest.approx(without)
        assert found.quantized.crossover == pytest.approx(crossover)
        assert found.quantized.crossovers == pytest.approx([crossover])
        assert found.dense_multiply_adds.tolist() == [passes * n * m]
        wins = rate < crossover
        assert (found.spiking.total < found.quantized.total) == wins
        assert f"Spiking {'wins' if wins else 'loses'}" in found.verdict
        costs = Costs.int8(skips_zeros=True)
        skipping = dataclasses.replace(found, costs=costs).quantized
        expected = crossover_of_dense(*size, x.mean(), passes)[:2]
        assert (skipping.crossover, skipping.total) == pytest.approx(expected)


@pytest.mark.on_each_backend
def test_the_description_the_plot_and_the_report_show_one_answer():
    parts = layers.Dense(120), LIF(), layers.Dense(10)
    model = spiking(chain(*parts, shape=(40,)), T)
    x = np.random.default_rng(0).normal(size=(8, T, 40)).astype("float32")
    found, described = analysis.energy(model, x), rsnn.describe(model, x, verbose=False)
    # What reads real frames multiplies, in both networks alike, but for the membranes.
    assert described.synaptic_operations == found.accumulates[1]
    without_membranes = found.spiking.layers[0] - found.spiking.membranes[0]
    assert found.quantized.layers[0] == pytest.approx(without_membranes)
    counts = f"{found.accumulates[1]:,.0f} synaptic operations and 19,200 multiply-adds"
    assert f"{counts}; without" in str(described)
    dense = f"in 4 passes, {found.quantized.total * 1e9:.3g} nJ with 3-bit activations"
    assert f"without spikes, {dense}" in found.totals
    axes = found.plot().axes[0]
    for shown in (str(described), str(found), axes.get_title()):
        assert found.totals in shown.replace("\n", "; ")
    assert found.verdict in str(described)
    heights = [sum(bar.get_height() for bar in bars) for bars in axes.containers]
    spending = found.spiking, found.quantized, found.dense
    totals = [breakdown.total * 1e6 for breakdown in spending]
    assert [sum(heights[:4]), *heights[4:]] == pytest.approx(totals)


def spent_at(found, layer, factor):
    """What a layer spends on a sample if its spikes are this many times as many."""
    traffic, costs, breakdown = found.traffic, found.costs, found.spiking
    added = found.accumulates[layer] * factor
    read = traffic.weights[layer] * traffic.runs[layer]
    if traffic.most_accumulates[layer]:
        read = min(read, added)
    multiplied = found.multiply_adds[layer] * costs.multiply_add
    operations = multiplied + added * costs.accumulate
    weights = read * costs.weight_bits * costs.memory
    return (
        operations + weights + breakdown.membranes[layer] + breakdown.activations[layer]
    )


def spent_in_all(spent, factor):
    return sum(one(factor) for one in spent)


def factor_at(spent, dense):
    """Where an increasing function reaches a value, by bisection; infinity if it does
    not."""
    below, above = 0.0, 1e6
    if spent(above) < dense:
        return np.inf
    for _ in range(200):
        middle = (below + above) / 2
        if spent(middle) < dense:
            below = middle
        else:
            above = middle
    return below


def test_spiking_spends_as_much_as_each_dense_network_at_its_crossover():
    measured, totals = analysis.energy(*model_and_images()), set()
    for costs, kinds in (
        (INT8, {"never"}),
        (Costs(weight_bits=2, membrane_bits=1), {"below", "always"}),
        (Costs.int8(memory=1e-14, skips_zeros=True), {"never", "below"}),
        (Costs.int8(accumulate=0.0, memory=1e-14), {"never", "always"}),
    ):
        found, seen = dataclasses.replace(measured, costs=costs), set()
        spent = [functools.partial(spent_at, found, at) for at in range(7)]
        assert [one(1.0) for one in spent] == pytest.approx(found.spiking.layers)
        for dense in (found.quantized, found.dense):
            rates, crossovers = found.firing_rates, dense.crossovers
            assert_array_equal(np.isnan(rates), np.isnan(crossovers))
            for at in np.flatnonzero(np.isfinite(rates)):
                expected = rates[at] * factor_at(spent[at], dense.layers[at])
                assert crossovers[at] == pytest.approx(expected, rel=1e-6)
                below = "never" if expected < 1e-6 else "below"
                seen.add("always" if expected > 1 else below)
            factor = factor_at(functools.partial(spent_in_all, spent), dense.total)
            expected = found.firing_rate * factor
            assert dense.crossover == pytest.approx(expected, rel=1e-6)
            always = found.wins(dense) == "at any firing rate"
            assert always == (dense.crossover >= 1)
            totals.add(always)
        assert seen == kinds
    assert totals == {False, True}


def test_integer_spikes_take_a_bit_for_each_spike_and_without_them_bits_for_their_sum():
    parts = ILIF(levels=3), layers.DepthwiseConv2D(3)
    model = spiking(chain(*parts, shape=(6, 6, 2)), T)
    found = analysis.energy(model, np.full((2, 6, 6, 2), 2.0, "float32"))
    # 4 steps of up to 3 spikes are 13 numbers.
    assert (found.levels, found.quantized.activation_bits) == (3, 4)
    assert 1 < found.firing_rate <= 3
    bit = found.costs.memory
    assert found.spiking.activations == pytest.approx([2 * 72 * T * 3 * bit])
    operations = 288 * (0.9e-12 + 3.7e-12 * 4 / 32)
    read = (18 * 32 + 2 * 72 * 4) * bit
    assert found.quantized.layers == pytest.approx([operations + read])


def test_what_a_network_without_time_does_not_have_costs_the_dense_network_nothing():
    back = Recurrent(LIF(), layers.Dense(5, name="back"), name="recurrent")
    parts = [layers.Dense(5), back, PSN(T, name="psn"), TimeMean(), layers.Dense(2)]
    model = spiking(chain(*parts, shape=(5,)), T)
    found = analysis.energy(model, np.full((2, T, 5), 1.0, "float32"), INT8)
    back, psn = found.layers.index("recurrent/back"), found.layers.index("psn")
    assert found.spiking.layers[back] > 0
    # It adds into the membranes that the layer before adds into.
    assert found.spiking.membranes[back] == 0
    assert found.spiking.weights[psn] == pytest.approx((T * T + T) * 8 * INT8.memory)
    assert found.quantized.layers[[back, psn]].tolist() == [0, 0]
    assert found.quantized.crossovers[back] == 0
    assert "recurrent/back" in str(found)
    # What follows a time mean has no membranes.
    assert found.traffic.kept[[0, -1]].tolist() == [T - 1, 0]


def test_costs_refuse_what_is_unknown_or_no_cost():
    with pytest.raises(TypeError, match=r"`costs` must be Costs, .*'int8'"):
        analysis.energy(*model_and_images(), costs="int8")
    with pytest.raises(TypeError, match="sram"):
        Costs.int8(sram=1e-12)
    with pytest.raises(ValueError, match="`memory` must be >= 0"):
        Costs(memory=-1e-12)
    assert dataclasses.replace(INT8, weight_bits=4) == Costs.int8(weight_bits=4)

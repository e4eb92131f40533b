"""The ledger of energy: joules and crossovers are those of a count by hand."""

import dataclasses
import pathlib
import re

import helpers
import keras
import numpy as np
import pytest
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn import analysis
from keras_ratesnn.analysis import Costs
from keras_ratesnn.layers import IF, ILIF, LIF, PSN, Recurrent, TimeMean
from tests.analysis.test_analysis_energy import (
    T,
    inputs_by_hand,
    model_and_images,
    uses_by_hand,
)

pytestmark = pytest.mark.runs_once

INT8 = Costs.int8()


def dense(inputs, outputs, timesteps):
    # Neurons spike where pixels are 1.
    return rsnn.SpikingModel(
        keras.Sequential([keras.Input((inputs,)), IF(), layers.Dense(outputs), IF()]),
        timesteps,
    )


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
    spike_cost, steps_cost = (
        add + 8 * bit,
        2 * (steps * n * 1 + (steps - 1) * m * 16) * bit,
    )
    # A pass multiplies by `bits`, reads the weights once, and inputs of `bits` are
    # written and read.
    rival = passes * (
        nonzero * n * m * (add + multiply * bits / 8 + 8 * bit) + 2 * n * bits * bit
    )
    return (
        (rival - steps_cost) / (steps * n * m * spike_cost),
        rival,
        spike_cost,
        steps_cost,
    )


@pytest.mark.on_each_backend
def test_the_crossover_of_a_dense_layer_is_that_of_the_formula():
    n, m, steps, bits = 400, 64, 5, 3
    crossover, rival, spike_cost, steps_cost = crossover_of_dense(n, m, steps, bits)
    model = dense(n, m, steps)
    for rate, wins in ((crossover - 0.005, True), (crossover + 0.005, False)):
        x = pixels(rate, n)
        found = analysis.energy(model, x, INT8)
        assert found.firing_rate == pytest.approx(x.mean())
        assert found.spiking.total == pytest.approx(
            steps * x.sum() * m * spike_cost + steps_cost
        )
        assert found.quantized.activation_bits == bits
        assert found.quantized.total == pytest.approx(rival)
        assert found.quantized.crossover == pytest.approx(crossover)
        assert found.quantized.crossovers == pytest.approx([crossover])
        assert (found.spiking.total < found.quantized.total) == wins
        assert f"Spiking {'wins' if wins else 'loses'}" in found.verdict
        rates = (
            f"wins below a firing rate of {crossover:.1%}; this network fires at "
            f"{found.firing_rate:.1%}."
        )
        assert found.verdict.endswith(rates)
        skipping = dataclasses.replace(
            found, costs=Costs.int8(skips_zeros=True)
        ).quantized
        assert skipping.crossover == pytest.approx(
            crossover_of_dense(n, m, steps, bits, x.mean())[0]
        )


@pytest.mark.on_each_backend
def test_the_rival_of_a_network_that_reads_frames_runs_for_each():
    n, m, steps, bits = 40, 64, 5, 3
    x = pixels(0.3, steps, n)
    found = analysis.energy(dense(n, m, steps), x, INT8)
    crossover, rival, spike_cost, steps_cost = crossover_of_dense(
        n, m, steps, bits, passes=steps
    )
    assert (
        found.total
        == found.spiking.total
        == pytest.approx(x.sum() * m * spike_cost + steps_cost)
    )
    assert found.total_without_spikes == found.quantized.total == pytest.approx(rival)
    assert found.quantized.crossover == pytest.approx(crossover)
    assert found.multiply_adds_without_spikes.tolist() == [steps * n * m]
    skipping = dataclasses.replace(found, costs=Costs.int8(skips_zeros=True)).quantized
    assert skipping.total == pytest.approx(
        crossover_of_dense(n, m, steps, bits, x.mean(), steps)[1]
    )


@pytest.mark.on_each_backend
def test_the_description_the_plot_and_the_report_show_one_answer():
    network = keras.Sequential(
        [keras.Input((40,)), layers.Dense(120), LIF(), layers.Dense(10)]
    )
    x = np.random.default_rng(0).normal(size=(8, T, 40)).astype("float32")
    model = rsnn.SpikingModel(network, T)
    found, described = analysis.energy(model, x), rsnn.describe(model, x, verbose=False)
    # What reads real frames multiplies, in both networks alike, but for the membranes.
    assert (described.synaptic_operations, described.dense_multiply_adds) == (
        found.accumulates[1],
        T * (40 * 120 + 120 * 10),
    )
    assert found.multiply_adds.tolist() == [T * 40 * 120, 0]
    assert found.quantized.layers[0] == pytest.approx(
        found.spiking.layers[0] - found.spiking.membranes[0]
    )
    assert (
        f"{found.accumulates[1]:,.0f} synaptic operations and 19,200 multiply-adds; "
        "without" in str(described)
    )
    assert (
        f"without spikes, in 4 passes, {found.quantized.total * 1e9:.3g} nJ with 3-bit "
        "activations" in found.totals
    )
    for shown in (str(described), str(found), found.plot().axes[0].get_title()):
        assert found.totals in shown.replace("\n", "; ")
    assert found.verdict in str(described)
    heights = [
        sum(bar.get_height() for bar in bars)
        for bars in found.plot().axes[0].containers
    ]
    totals = [sum(heights[:4]), *heights[4:]]
    assert np.multiply(totals, 1e-6) == pytest.approx(
        [of.total for of in (found.spiking, found.quantized, found.without_spikes)]
    )


def test_the_docs_set_the_formula_beside_the_published_rate():
    rates = [
        crossover_of_dense(1024, 1024, 5, 3, nonzero)[0] for nonzero in (1.0, 0.29)
    ]
    assert [f"{rate:.1%}" for rate in rates] == ["20.3%", "5.7%"]
    page = (pathlib.Path(__file__).parents[2] / "docs" / "analysis.md").read_text(
        encoding="utf-8"
    )
    assert "20.3 %" in page
    assert "29 %" in page
    assert "5.7 %" in page


def spent_at(found, layer, factor):
    """What a layer spends on a sample if its spikes are this many times as many."""
    traffic, costs, added = (
        found.traffic,
        found.costs,
        found.accumulates[layer] * factor,
    )
    read = traffic.weights[layer] * traffic.runs[layer]
    if traffic.most_accumulates[layer]:
        read = min(read, added)
    operations = (
        found.multiply_adds[layer] * costs.multiply_add + added * costs.accumulate
    )
    ledger = found.spiking
    return (
        operations
        + read * costs.weight_bits * costs.memory
        + ledger.membranes[layer]
        + ledger.activations[layer]
    )


def factor_at(spent, rival):
    """Where an increasing function reaches a value, by bisection; infinity if it does
    not."""
    below, above = 0.0, 1e6
    if spent(above) < rival:
        return np.inf
    for _ in range(200):
        middle = (below + above) / 2
        below, above = (middle, above) if spent(middle) < rival else (below, middle)
    return below


def test_spiking_spends_as_much_as_each_rival_at_its_crossover():
    model, images = model_and_images()
    measured = analysis.energy(model, images)
    for costs, kinds in (
        (INT8, {"never"}),
        (Costs(weight_bits=2, membrane_bits=1), {"below", "always"}),
        (Costs.int8(memory=1e-14, skips_zeros=True), {"never", "below"}),
        (Costs.int8(accumulate=0.0, memory=1e-14), {"never", "always"}),
    ):
        found, seen = dataclasses.replace(measured, costs=costs), set()
        for rival in (found.quantized, found.without_spikes):
            for at, (rate, crossover) in enumerate(
                zip(found.firing_rates, rival.crossovers, strict=True)
            ):
                assert np.isnan(rate) == np.isnan(crossover)
                if not np.isnan(rate):
                    expected = rate * factor_at(
                        lambda f, found=found, at=at: spent_at(found, at, f),
                        rival.layers[at],
                    )
                    assert crossover == pytest.approx(expected, rel=1e-6)
                    seen.add(
                        "never"
                        if expected < 1e-6
                        else "always"
                        if expected > 1
                        else "below"
                    )
            factor = factor_at(
                lambda f, found=found: sum(spent_at(found, at, f) for at in range(7)),
                rival.total,
            )
            assert rival.crossover == pytest.approx(
                factor * found.firing_rate, rel=1e-6
            )
        assert [spent_at(found, at, 1.0) for at in range(7)] == pytest.approx(
            found.spiking.layers
        )
        assert seen == kinds


def test_traffic_is_that_counted_by_hand():
    model, images = model_and_images()
    found = analysis.energy(model, images)
    for index, (layer, inputs, outputs) in enumerate(
        inputs_by_hand(model.network, images)
    ):
        at = found.layers.index(layer.name)
        traffic = analysis.Traffic(*(values[at] for values in found.traffic))
        one, size = outputs.shape[2:], np.prod(inputs.shape[2:])
        assert (traffic.static, traffic.runs, traffic.kept) == (
            (1, 1, T - 1) if index == 0 else (0, T, T - 1)
        )
        assert (traffic.weights, traffic.outputs) == (
            np.prod(layer.kernel.shape),
            np.prod(one),
        )
        of_spikes = set(np.unique(inputs)) <= {0.0, 1.0}
        assert (traffic.spikes, traffic.values) == (
            (size, 0) if of_spikes else (0, size)
        )
        if of_spikes:
            assert traffic.most_accumulates == uses_by_hand(
                layer, np.ones(inputs.shape[2:]), one
            )
            ever = sum(
                uses_by_hand(layer, sample, one) for sample in inputs.any(axis=0)
            ) / len(images)
            assert traffic.nonzero == pytest.approx(ever, rel=0.01)
            assert found.firing_rates[at] == pytest.approx(
                found.accumulates[at] / T / traffic.most_accumulates
            )
        else:
            assert traffic.nonzero == found.multiply_adds_without_spikes[at]


def test_integer_spikes_take_a_bit_for_each_spike_and_the_rival_bits_for_their_sum():
    inputs = keras.Input((6, 6, 2))
    x = layers.DepthwiseConv2D(3, name="depthwise")(ILIF(levels=3)(inputs))
    model = helpers.spiking(keras.Model(inputs, x), T)
    found = analysis.energy(model, np.full((2, 6, 6, 2), 2.0, "float32"))
    # 4 steps of up to 3 spikes are 13 numbers.
    assert (found.levels, found.quantized.activation_bits) == (3, 4)
    assert 1 < found.firing_rate <= 3
    assert found.spiking.activations == pytest.approx(
        [2 * 72 * T * 3 * found.costs.memory]
    )
    assert found.quantized.layers == pytest.approx(
        [
            288 * (0.9e-12 + 3.7e-12 * 4 / 32)
            + (18 * 32 + 2 * 72 * 4) * found.costs.memory
        ]
    )


def test_what_a_network_without_time_does_not_have_costs_the_rival_nothing():
    inputs = keras.Input((5,))
    x = Recurrent(LIF(), layers.Dense(5, name="back"), name="recurrent")(
        layers.Dense(5, name="in")(inputs)
    )
    model = helpers.spiking(
        keras.Model(inputs, layers.Dense(2, name="out")(PSN(T, name="psn")(x))), T
    )
    found = analysis.energy(model, np.full((2, T, 5), 1.0, "float32"), INT8)
    back, psn = found.layers.index("recurrent/back"), found.layers.index("psn")
    assert found.spiking.layers[back] > 0
    # It adds into the membranes that the layer before adds into.
    assert found.spiking.membranes[back] == 0
    assert found.spiking.weights[psn] == pytest.approx((T * T + T) * 8 * INT8.memory)
    assert found.quantized.layers[[back, psn]].tolist() == [0, 0]
    assert found.quantized.crossovers[back] == 0
    assert "recurrent/back" in str(found)


@pytest.mark.on_each_backend
def test_products_of_attention_read_no_weights():
    inputs = keras.Input((3, 4))
    spikes = LIF(threshold=0.1)(inputs)
    product = keras.ops.matmul(keras.ops.transpose(spikes, (0, 2, 1)), spikes)
    network = keras.Model(inputs, keras.ops.matmul(spikes, product))
    found = analysis.energy(
        helpers.spiking(network, T), helpers.data(2, (3, 4))[0], INT8
    )
    bit = INT8.memory
    assert found.spiking.weights.tolist() == [0, 0]
    np.testing.assert_allclose(
        found.spiking.membranes, 2 * (T - 1) * 16 * bit * np.array([4 * 4, 3 * 4])
    )
    # The second product takes spikes, and sums of 16 numbers.
    np.testing.assert_allclose(
        found.spiking.activations, 2 * T * bit * np.array([2 * 12, 12 + 16 * 8])
    )
    assert found.traffic.most_accumulates.tolist() == [48, 48]


def test_what_follows_a_time_mean_has_no_membranes():
    inputs = keras.Input((3,))
    x = TimeMean()(LIF()(layers.Dense(4)(inputs)))
    found = analysis.energy(
        helpers.spiking(keras.Model(inputs, layers.Dense(2)(x)), T),
        np.ones((2, 3), "float32"),
    )
    assert found.traffic.kept.tolist() == [T - 1, 0]


def test_the_report_is_one_table_with_a_verdict_in_words():
    model, images = model_and_images()
    found = analysis.energy(model, images, INT8)
    first, header, _, *rows, parts, verdict = str(found).splitlines()
    assert first == f"Energy of a sample: {found.totals}"
    assert re.split(" {2,}", header) == [
        "layer",
        "with spikes",
        "8-bit",
        "3-bit",
        "of the 3-bit",
        "firing rate",
        "wins below",
    ]
    assert [row.split("  ")[0] for row in rows] == [*found.layers, "all"]
    assert f"{found.spiking.total / found.quantized.total:.3g}" in rows[-1]
    assert parts.startswith("With spikes: operations ")
    assert verdict == found.verdict


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (
            [layers.Dense(2), IF()],
            "loses: it spends .* No layer that is counted takes spikes.",
        ),
        (
            [IF(1e6), layers.Dense(2)],
            "It wins below a firing rate of .*; this network fires at 0.0%.",
        ),
        (
            [layers.Dense(2), IF(), layers.Dense(2, use_bias=False)],
            "It wins at no firing rate; this network fires at ",
        ),
        (
            [LIF(threshold=0.1, decay=0.0), layers.Dense(400)],
            "It wins at any firing rate; this network fires at ",
        ),
        ([IF()], "No layer is counted that a network without spikes has."),
    ],
)
def test_the_verdict_has_words_for_networks_without_spikes_or_a_crossover(
    network, expected
):
    model = helpers.spiking(keras.Sequential([keras.Input((40,)), *network]), T)
    costs = Costs(memory=0.0, accumulate=1e-13) if "any" in expected else None
    found = analysis.energy(model, helpers.data(2, (40,))[0], costs)
    assert re.search(expected, found.verdict)
    assert found.verdict in str(found)


def test_costs_refuse_what_is_unknown_or_no_cost():
    with pytest.raises(TypeError, match="sram"):
        Costs(sram=1e-12)
    with pytest.raises(TypeError, match="sram"):
        Costs.int8(sram=1e-12)
    with pytest.raises(ValueError, match="`memory` must be >= 0"):
        Costs(memory=-1e-12)
    with pytest.raises(ValueError, match="`weight_bits` must be 1 or more"):
        Costs.int8(weight_bits=0)
    with pytest.raises(TypeError, match="`skips_zeros` must be True or False"):
        Costs(skips_zeros=1)
    assert dataclasses.replace(INT8, weight_bits=4) == Costs.int8(weight_bits=4)

"""Parallel spiking neurons: reference cases, all methods, both step modes, padding,
streams."""

import functools

import keras
import numpy as np
import pytest
from helpers import (
    assert_same,
    loss_and_gradients,
    saved_and_loaded,
    spiking,
    to_numpy,
    training_step,
)
from keras import layers
from next_cases import NextCase

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate

T = 5
Y = np.array([0, 1, 2, 1])


def psn(case=None):
    return rsnn.layers.PSN(case["timesteps"] if case else T)


def masked(case=None):
    return (
        rsnn.layers.MaskedPSN(case["timesteps"], case["order"], mask=case["mask"])
        if case
        else rsnn.layers.MaskedPSN(T, 3)
    )


def half_masked():
    return rsnn.layers.MaskedPSN(T, 3, mask=0.5)


def sliding(case=None):
    return rsnn.layers.SlidingPSN(case["order"] if case else 3)


def of_cell():
    return rsnn.layers.Neuron(rsnn.layers.MaskedPSNCell(T, 3))


STEPWISE = [masked, sliding]


def network(make, depth=2, threshold=0.3):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,))
    for index in range(depth):
        x = make()(layers.Dense(8, name=f"dense_{index}")(x))
    network = keras.Model(inputs, layers.Dense(3, name="last")(x))
    for layer in network.layers:
        if hasattr(layer, "cell"):
            # Spikes at some steps, whatever the random weights.
            layer.cell.bias.assign(np.full(layer.cell.bias.shape, -0.1))
    return network


def frames():
    return np.random.default_rng(0).normal(0.3, 1.0, (4, T, 6)).astype("float32")


@functools.cache
def step_of(make, gradient, step_mode, depth):
    return training_step(
        spiking(network(make, depth), T, gradient, step_mode=step_mode)
    )


def results(make, gradient, step_mode="multi", x=None, depth=2):
    value, gradients, _ = step_of(make, gradient, step_mode, depth)(
        frames() if x is None else x, Y
    )
    # Neurons are named anew in each network; those of a depth keep their order.
    names = [
        path if "cell" not in path else f"cell {index}"
        for index, path in enumerate(gradients)
    ]
    return {"value": value, **dict(zip(names, gradients.values(), strict=True))}


@pytest.mark.parametrize(
    ("name", "make"),
    [("psn_mlp", psn), ("masked_psn_mlp", masked), ("sliding_psn_mlp", sliding)],
)
@pytest.mark.parametrize("gradient", ["bptt", "windows"])
def test_the_authors_program_agrees(name, make, gradient):
    case = NextCase(name)

    def hidden(x, synapse, at):
        return make(case.settings)(synapse(x))

    timesteps = case.settings["timesteps"]
    model = case.model(
        hidden, "bptt" if gradient == "bptt" else Rate(windows=timesteps)
    )
    neurons = [layer for layer in model.network.layers if hasattr(layer, "cell")]
    names = {}
    for layer, theirs in zip(neurons, ("n1", "n2"), strict=True):
        for kind in ("weight", "bias"):
            getattr(layer.cell, kind).assign(case.arrays[f"weight/{theirs}.{kind}"])
            names[getattr(layer.cell, kind).path] = f"{theirs}.{kind}"
    case.assert_agrees(model, names)


@pytest.mark.parametrize("make", [psn, sliding])
def test_windows_of_constant_inputs_are_bptt(make):
    x = np.repeat(frames()[:, [0, 3]], (2, 3), axis=1)
    assert_same(
        results(make, Rate(windows=(2, 3)), x=x, depth=1),
        results(make, "bptt", x=x, depth=1),
    )


def test_padding_in_gaps_moves_the_queue():
    x = frames()
    mask = np.ones((4, T), bool)
    mask[:, 2] = False
    zeroed = np.where(mask[..., None], x, 0.0)
    model = spiking(
        keras.Model(inputs := keras.Input((6,)), rsnn.layers.SlidingPSN(3)(inputs)),
        T,
        return_sequences=True,
    )
    expected = to_numpy(model(zeroed)) * mask[..., None]
    for step_mode in ("multi", "single"):
        model.step_mode = step_mode
        np.testing.assert_array_equal(to_numpy(model(x, mask=mask)), expected)


@pytest.mark.runs_once
def test_frozen_neurons_store_nothing_for_their_own_weights():
    from counted_operations import Counter

    memory, gradients, depth = [], [], 6
    # Slopes and inputs, of 8 neurons, in float32.
    of_a_layer = 2 * len(Y) * T * 8 * 4
    for trainable in (True, False):
        model = spiking(network(psn, depth), T, "rate")
        for layer in model.network.layers:
            layer.trainable = trainable or not hasattr(layer, "cell")
        gradients.append(loss_and_gradients(model, frames(), Y)[1])
        with Counter() as counter:
            model(frames(), training=True)
        memory.append(counter.most_bytes)
    assert memory[0] - memory[1] > depth // 2 * of_a_layer
    assert len(gradients[1]) == len(gradients[0]) - 2 * depth
    assert_same({path: gradients[0][path] for path in gradients[1]}, gradients[1])


def test_online_methods_carry_no_gradient_between_steps_also_in_multi_step_mode():
    assert_same(results(sliding, "sltt"), results(sliding, "sltt", "single"))


@pytest.mark.runs_once
def test_a_mask_is_raised_saved_and_must_be_complete_for_single_steps():
    model = spiking(network(half_masked), T, "rate")
    neurons = [layer for layer in model.network.layers if hasattr(layer, "cell")]
    with pytest.raises(
        ValueError,
        match=r'`step_mode="single"` runs one time step.*MaskedPSN.*mask=1.0',
    ):
        model.step_mode = "single"
    model = spiking(network(half_masked), T, "rate")
    model.compile("sgd", "mse")
    neurons = [layer for layer in model.network.layers if hasattr(layer, "cell")]
    before = to_numpy(model(frames()))
    model.fit(
        frames(),
        np.zeros((4, 3)),
        epochs=3,
        callbacks=[rsnn.callbacks.RaiseMask(epochs=3, start=0.25)],
        verbose=0,
    )
    assert [layer.mask for layer in neurons] == [1.0, 1.0]
    model.step_mode = "single"
    assert not np.array_equal(to_numpy(model(frames())), before)
    neurons[0].mask = 0.75
    with pytest.raises(ValueError, match="runs one time step"):
        model.predict(frames(), verbose=0)
    model.step_mode = "multi"
    again = saved_and_loaded(model)
    assert [layer.mask for layer in again.network.layers if hasattr(layer, "cell")] == [
        0.75,
        1.0,
    ]


@pytest.mark.runs_once
def test_what_parallel_neurons_cannot_do_is_an_error():
    for call, message in (
        (
            lambda: spiking(network(psn), T + 1),
            "`timesteps` must be 5, the number.*SlidingPSN",
        ),
        (lambda: spiking(network(psn), T - 1), "`timesteps` must be 5"),
        (
            lambda: spiking(
                network(lambda: rsnn.layers.Neuron(rsnn.layers.PSNCell(T))), T - 1
            ),
            "`timesteps` must be 5",
        ),
        (lambda: spiking(network(masked), T + 1), "`timesteps` must be at most 5"),
        (lambda: spiking(network(of_cell), T + 1), "`timesteps` must be at most 5"),
        (
            lambda: spiking(network(psn), T, step_mode="single"),
            "depend on inputs of later steps",
        ),
        (
            lambda: spiking(network(psn), T).step(frames()[:, 0]),
            "`step` runs one time step",
        ),
        (
            lambda: rsnn.export_step(spiking(network(psn), T), "step.onnx", "onnx"),
            "`export_step` runs one time step",
        ),
        (
            lambda: spiking(network(psn), T, "sltt"),
            'gradient="sltt" differentiates each time step by itself',
        ),
        (lambda: spiking(network(sliding), T, "ottt"), "ottt"),
        (
            lambda: rsnn.layers.MaskedPSN(4, 5),
            "`order` must be at most timesteps. Received: order=5 for timesteps=4",
        ),
        (lambda: rsnn.layers.MaskedPSN(4, 2, mask=1.5), "`mask` must be .*<= 1"),
        (lambda: rsnn.layers.SlidingPSN(0), "`order` must be 1 or more"),
        (lambda: rsnn.layers.PSN(0), "`timesteps` must be 1 or more"),
        (lambda: rsnn.callbacks.RaiseMask(epochs=0), "`epochs` must be 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_sliding_cell_conforms():
    rsnn.testing.check_cell(rsnn.layers.SlidingPSNCell(3), shapes=((3,),))


@pytest.mark.runs_once
def test_neurons_of_order_one_have_no_state():
    inputs = keras.Input((6,))
    model = spiking(
        keras.Model(inputs, rsnn.layers.SlidingPSN(1)(inputs)),
        T,
        "rate",
        return_sequences=True,
    )
    for model.step_mode in ("multi", "single"):
        np.testing.assert_array_equal(to_numpy(model(frames())), frames() >= 1.0)


@pytest.mark.runs_once
def test_a_step_is_exported_with_the_queue_of_inputs(tmp_path):
    x, found = frames(), {}
    for make in STEPWISE:
        model = spiking(network(make, depth=1), T)
        found[make] = rsnn.export_step(
            model, tmp_path / "step.onnx", "onnx", verbose=False
        )
        assert all(not state.any() for state in found[make].values())
    assert [len(states) for states in found.values()] == [3, 2]
    assert to_numpy(model(x)).shape == (4, 3)


def test_membranes_and_rates_are_those_of_all_steps():
    model = spiking(network(psn, depth=1), T, return_sequences=True)
    (neurons,) = (layer for layer in model.network.layers if hasattr(layer, "cell"))
    neurons._name = "psn"
    traces = rsnn.analysis.membranes(model, frames(), "psn", neurons=[0])
    current = to_numpy(model.network.get_layer("dense_0")(frames()[0]))
    weight, bias = (
        to_numpy(part.value) for part in (neurons.cell.weight, neurons.cell.bias)
    )
    np.testing.assert_allclose(
        traces.values[0, :, 0], (weight @ current + bias)[:, 0], rtol=1e-4, atol=1e-5
    )


class DoubledCell(rsnn.layers.SlidingPSNCell):
    """A custom cell with a derivative of its step, and none of all steps."""

    def _weighted(self, latest_first):
        return 2.0 * super()._weighted(latest_first)

    def step_derivative(self, *args, **kwargs):
        along = super().step_derivative(*args, **kwargs)

        def doubled(*tangents):
            of_distance, state = along(*tangents)
            return 2.0 * of_distance, state

        return doubled


def doubled():
    return rsnn.layers.Neuron(DoubledCell(3))


@pytest.mark.parametrize("gradient", ["rate", Rate(windows=2)], ids=str)
def test_a_custom_parallel_cell_with_a_step_derivative_has_its_gradient_in_both_modes(
    gradient,
):
    multi, single = (
        results(doubled, gradient, step_mode) for step_mode in ("multi", "single")
    )
    for name in single:
        np.testing.assert_allclose(
            multi[name], single[name], rtol=1e-4, atol=1e-6, err_msg=name
        )


def test_of_a_custom_parallel_cell_all_earlier_inputs_are_said_to_reach_a_membrane():
    class CumulativeCell(rsnn.layers.NeuronCell):
        in_parallel = True

        def over_time(self, inputs):
            return keras.ops.cumsum(inputs, axis=1) - self.threshold

    inputs = keras.Input((6,))
    model = spiking(
        keras.Model(inputs, rsnn.layers.Neuron(CumulativeCell())(inputs)), T
    )
    assert rsnn.analysis.energy(model, frames()).multiply_adds.tolist() == [
        6 * T * (T + 1) / 2
    ]

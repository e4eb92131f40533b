"""Recurrent neurons, and the scale through which a neuron gets its own spikes back:
reference cases, one sweep by hand, gaps."""

import numpy as np
import pytest
from helpers import both_step_modes, chain, loss_and_gradients, spiking, to_numpy
from keras import layers, ops
from next_cases import NextCase
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, CuBaLIF, Recurrent, Scale

T = 5
Y = np.array([0, 1, 2, 1])


def frames(*shape):
    random = np.random.default_rng(0)
    return random.normal(0.3, 1.0, (4, T, *shape)).astype("float32")


@pytest.mark.parametrize("name", ["recurrent_mlp", "rleaky_mlp", "rsynaptic_mlp"])
def test_the_authors_program_agrees(name):
    """In the first, a layer "in" stands for the rows of the kernel that its inputs
    meet."""
    case = NextCase(name)
    settings, arrays = case.settings, case.arrays
    has_container = name == "recurrent_mlp"

    def hidden(x, synapse, at):
        x = synapse(x)
        if has_container:
            x = layers.Dense(16, name=f"{at}_in")(x)
        values = settings["decay"], settings["threshold"]
        neuron = LIF(*values, reset_delay=not has_container)
        if "alpha" in settings:
            neuron = CuBaLIF(
                *values, synaptic_decay=settings["alpha"], reset_delay=True
            )
        back = layers.Dense(16, use_bias=not has_container, name=f"{at}_back")
        return Recurrent(neuron, back, name=f"{at}_neurons")(x)

    model = case.dense_model(hidden)
    for at, theirs in (("a", "n1"), ("b", "n2")):
        back = model.network.get_layer(f"{at}_neurons").synapse
        if has_container:
            for kind in ("weight", "grad"):
                rows = np.split(arrays.pop(f"{kind}/{theirs}.rc.weight"), 2)
                for part, name in zip(rows, ("in", "back"), strict=True):
                    arrays[f"{kind}/{theirs}.{name}"] = part
            forth = model.network.get_layer(f"{at}_in")
            case.load(forth.kernel, f"{theirs}.in")
            case.load(back.kernel, f"{theirs}.back")
            case.load(forth.bias, f"{theirs}.rc.bias")
        else:
            case.load(back.kernel, f"{theirs}.recurrent.weight")
            case.load(back.bias, f"{theirs}.recurrent.bias")
    case.assert_agrees(model)


def test_one_sweep_carries_errors_through_the_synapse_once():
    """δ_c = g (δ_r + κ V g δ_r) for one neuron: all by hand."""
    forth, back = layers.Dense(1), layers.Dense(1, use_bias=False)
    model = spiking(chain(forth, Recurrent(LIF(0.0), back), shape=(1,)), 4, "rate")
    back.set_weights([np.full((1, 1), -0.5)])
    forth.set_weights([np.full((1, 1), 1.25), np.zeros(1)])
    x = np.ones((1, 4, 1), "float32")
    _, gradients = loss_and_gradients(
        model, x, Y[:1], lambda y, outputs: ops.sum(outputs)
    )
    # Currents 1.25, 0.75, 1.25, 0.75: each spike prevents the next. Without a leak and
    # without memory g is the surrogate's derivative, the same on both sides.
    sigmoid = 1 / (1 + np.exp(1.0))
    g = 4 * sigmoid * (1 - sigmoid)
    of_kernel, _, of_back = gradients.values()
    error = g * (1 - 0.75 * 0.5 * g)
    assert_allclose(of_kernel, [[error]], rtol=1e-5)
    # In two of four steps a spike comes back.
    assert_allclose(of_back, [[0.5 * error]], rtol=1e-5)


def test_spikes_that_a_scale_passes_on_are_counted():
    neurons = Recurrent(LIF(0.5, 0.25), Scale(-0.5, name="back"), name="neurons")
    model = spiking(chain(neurons, Scale(0.5, name="forth"), shape=(3, 8)), T)
    energy = rsnn.analysis.energy(model, frames(3, 8))
    additions = dict(zip(energy.layers, energy.accumulates, strict=True))
    spikes = rsnn.analysis.raster(model, frames(3, 8), "neurons").spikes
    assert_allclose(additions["forth"], spikes.sum() / 4)
    assert_allclose(additions["neurons/back"], spikes[:, :-1].sum() / 4)


@both_step_modes
def test_after_a_gap_nothing_comes_back(step_mode):
    back = layers.Dense(1, use_bias=False, kernel_initializer="ones")
    network = chain(Recurrent(LIF(0.0), back), shape=(1,))
    model = spiking(network, 4, step_mode=step_mode, return_sequences=True)
    x = np.array([[[1.0], [0.0], [0.0], [0.0]]], "float32")
    mask = np.array([[True, True, False, True]])
    assert_array_equal(to_numpy(model(x))[0, :, 0], [1, 1, 1, 1])
    found = to_numpy(model(x, mask=mask))
    assert_array_equal(found[0, :, 0], [1, 1, 0, 0])

"""Recurrent neurons, and the scale through which a neuron gets its own spikes back:
reference cases, one sweep by hand, gaps, errors."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_same,
    compiled,
    loss_and_gradients,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers, ops
from next_cases import NextCase

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate
from keras_ratesnn.layers import LIF, CuBaLIF, Recurrent, Scale

T = 5
Y = np.array([0, 1, 2, 1])
STEP_MODES = ["multi", "single"]


def frames(*shape):
    random = np.random.default_rng(0)
    return random.normal(0.3, 1.0, (4, T, *shape)).astype("float32")


@pytest.mark.parametrize("gradient", ["bptt", "windows"])
@pytest.mark.parametrize("name", ["recurrent_mlp", "rleaky_mlp", "rsynaptic_mlp"])
def test_the_authors_program_agrees(name, gradient):
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

    if gradient == "windows":
        gradient = Rate(windows=settings["timesteps"])
    model, names = case.model(hidden, gradient), {}

    def load(variable, theirs, rows=slice(None)):
        """Gives a variable rows of an array of theirs, under a name of their own."""
        name = f"{theirs}{rows.start}"
        names[variable.path] = name
        arrays[f"grad/{name}"] = arrays[f"grad/{theirs}"][rows]
        variable.assign(arrays[f"weight/{theirs}"][rows])

    for at, theirs in (("a", "n1"), ("b", "n2")):
        back = model.network.get_layer(f"{at}_neurons").synapse
        if has_container:
            forth = model.network.get_layer(f"{at}_in")
            load(forth.kernel, f"{theirs}.rc.weight", slice(0, 16))
            load(back.kernel, f"{theirs}.rc.weight", slice(16, 32))
            load(forth.bias, f"{theirs}.rc.bias")
        else:
            load(back.kernel, f"{theirs}.recurrent.weight")
            load(back.bias, f"{theirs}.recurrent.bias")
    case.assert_agrees(model, names)


def test_one_sweep_carries_errors_through_the_synapse_once():
    """δ_c = g (δ_r + κ V g δ_r) for one neuron: all by hand."""
    inputs = keras.Input((1,))
    forth, back = layers.Dense(1), layers.Dense(1, use_bias=False)
    network = keras.Model(inputs, Recurrent(LIF(0.0), back)(forth(inputs)))
    model = spiking(network, 4, "rate")
    back.set_weights([np.full((1, 1), 0.5)])
    forth.set_weights([np.full((1, 1), 0.75), np.zeros(1)])
    x = np.ones((1, 4, 1), "float32")
    _, gradients = loss_and_gradients(
        model, x, Y[:1], lambda y, outputs: ops.sum(outputs)
    )
    # Currents 0.75, 0.75 ..., never a spike; without a leak and without memory g is the
    # surrogate's derivative.
    sigmoid = 1 / (1 + np.exp(1.0))
    g = 4 * sigmoid * (1 - sigmoid)
    of_kernel, _, of_back = gradients.values()
    np.testing.assert_allclose(of_kernel, [[g * (1 + 0.75 * 0.5 * g)]], rtol=1e-5)
    np.testing.assert_allclose(of_back, [[0.0]], atol=1e-7)


@pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "single"), ("bptt", "multi")]
)
def test_one_weight_each_is_a_diagonal_kernel(gradient, step_mode):
    """The loss, and gradients with the diagonal of that of the kernel."""
    weights = np.random.default_rng(0).normal(0.0, 0.6, 8).astype("float32")

    def results(synapse, values):
        keras.utils.set_random_seed(0)
        inputs, first = keras.Input((6,)), layers.Dense(8)
        x = Recurrent(LIF(0.5, 0.5), synapse)(first(inputs))
        network = keras.Model(inputs, layers.Dense(3)(x))
        synapse.set_weights([values])
        model = spiking(network, T, gradient, step_mode=step_mode)
        value, gradients = loss_and_gradients(model, frames(6), Y)
        (of_synapse,) = (gradients[weight.path] for weight in synapse.trainable_weights)
        return value, gradients[first.kernel.path], of_synapse

    found = results(Scale(per_channel=True), weights[None])
    value, of_kernel, of_synapse = results(
        layers.Dense(8, use_bias=False), np.diag(weights)
    )
    assert found[2].any()
    assert_same(found, (value, of_kernel, np.diag(of_synapse)[None]))


def test_a_scale_in_half_precision_is_saved_and_its_spikes_are_counted():
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs = keras.Input((3, 8))
    scale = Scale(-0.5, per_channel=True, axis=1, name="back")
    x = Recurrent(LIF(0.5, 0.25), scale, name="neurons")(inputs)
    x = layers.Flatten()(Scale(0.5, name="forth")(x))
    model = compiled(spiking(keras.Model(inputs, layers.Dense(3)(x)), T))
    x = frames(3, 8)
    model.fit(x, Y, verbose=0)
    assert scale.scale.shape == (1, 3, 1)
    assert np.all(to_numpy(scale.scale.value).astype("float32") != -0.5)
    found = saved_and_loaded(model).predict(x, verbose=0)
    np.testing.assert_array_equal(found, model.predict(x, verbose=0))
    energy = rsnn.analysis.energy(model, x)
    additions = dict(zip(energy.layers, energy.accumulates, strict=True))
    spikes = rsnn.analysis.raster(model, x, "neurons").spikes
    np.testing.assert_allclose(additions["forth"], spikes.sum() / 4)
    np.testing.assert_allclose(additions["neurons/back"], spikes[:, :-1].sum() / 4)


@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_after_a_gap_nothing_comes_back(step_mode):
    inputs = keras.Input((1,))
    back = layers.Dense(1, use_bias=False, kernel_initializer="ones")
    network = keras.Model(inputs, Recurrent(LIF(0.0), back)(inputs))
    model = spiking(network, 4, step_mode=step_mode, return_sequences=True)
    x = np.array([[[1.0], [0.0], [0.0], [0.0]]], "float32")
    mask = np.array([[True, True, False, True]])
    np.testing.assert_array_equal(to_numpy(model(x))[0, :, 0], [1, 1, 1, 1])
    found = to_numpy(model(x, mask=mask))
    np.testing.assert_array_equal(found[0, :, 0], [1, 1, 0, 0])


def online():
    inputs = keras.Input((3,))
    neurons = Recurrent(LIF(), layers.Dense(3))
    return spiking(keras.Model(inputs, neurons(inputs)), T, "ottt")


DENSE = layers.Dense(3)
ERRORS = [
    (
        lambda: Recurrent(LIF(), layers.Dense(3))(keras.Input((4,))),
        ValueError,
        r"shape of the neurons, \(4,\).*returns \(3,\)",
    ),
    (
        lambda: Recurrent(LIF(), layers.Dense(3, activation="relu")),
        ValueError,
        "`synapse` must be a layer that is affine",
    ),
    (
        lambda: Recurrent(LIF(), layers.BatchNormalization()),
        ValueError,
        "`synapse` must be a layer that is affine",
    ),
    (lambda: Recurrent(LIF(), 3), TypeError, "`synapse` must be a Layer"),
    (lambda: Recurrent(DENSE, DENSE), TypeError, "`neuron` must be a neuron layer"),
    (
        lambda: Recurrent(rsnn.layers.SlidingPSN(2), DENSE),
        ValueError,
        "whose neurons are parallel",
    ),
    (
        lambda: Recurrent(Recurrent(LIF(), DENSE), DENSE),
        ValueError,
        "already recurrent",
    ),
    (
        lambda: Recurrent(LIF(threshold_stabilizer=True), DENSE),
        ValueError,
        "threshold_stabilizer",
    ),
    (online, ValueError, "ottt"),
    *(
        (
            lambda axis=axis, shape=shape: Scale(per_channel=True, axis=axis).build(
                shape
            ),
            ValueError,
            f"`axis` must be an axis of known size.* Received: axis={axis}",
        )
        for axis, shape in ((0, (None, 3)), (2, (None, 3)), (-1, (None, None)))
    ),
]


@pytest.mark.runs_once
@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_what_cannot_be_recurrent_is_an_error(call, error, message):
    with pytest.raises(error, match=message):
        call()

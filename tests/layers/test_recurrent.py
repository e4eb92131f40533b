"""Recurrent neurons: reference cases, all methods, both step modes, gaps, streams.
Padding is in test_time_masks.py."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
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

T = 5
Y = np.array([0, 1, 2, 1])
STEP_MODES = ["multi", "single"]


def network(neuron=None, feedback=0.5):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,))
    for index in range(2):
        synapse = layers.Dense(
            8,
            kernel_initializer=keras.initializers.RandomNormal(stddev=feedback),
            name="back",
        )
        neurons = rsnn.layers.Recurrent(
            neuron() if neuron else rsnn.layers.LIF(0.5, 0.5),
            synapse,
            name=f"neurons_{index}",
        )
        x = neurons(layers.Dense(8, name=f"dense_{index}")(x))
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


def frames():
    return np.random.default_rng(0).normal(0.3, 1.0, (4, T, 6)).astype("float32")


def results(gradient, step_mode="multi", x=None, timesteps=T, **kwargs):
    model = spiking(network(**kwargs), timesteps, gradient, step_mode=step_mode)
    value, gradients = loss_and_gradients(model, frames() if x is None else x, Y)
    return {"value": value, **gradients}


@pytest.mark.parametrize("gradient", ["bptt", "windows"])
@pytest.mark.parametrize("name", ["recurrent_mlp", "rleaky_mlp", "rsynaptic_mlp"])
def test_the_authors_program_agrees(name, gradient):
    case = NextCase(name)
    settings, container = case.settings, name == "recurrent_mlp"
    lif = {
        "decay": settings["decay"],
        "threshold": settings["threshold"],
        "reset_delay": not container,
    }
    names = {}

    def hidden(x, synapse, at):
        neuron = (
            rsnn.layers.CuBaLIF(synaptic_decay=settings["alpha"], **lif)
            if "alpha" in settings
            else rsnn.layers.LIF(**lif)
        )
        x = synapse(x)
        if container:
            x = layers.Dense(16, name=f"{at}_in")(x)
        return rsnn.layers.Recurrent(
            neuron, layers.Dense(16, use_bias=not container), name=f"{at}_neurons"
        )(x)

    model = case.model(
        hidden, "bptt" if gradient == "bptt" else Rate(windows=settings["timesteps"])
    )
    for at, theirs in (("a", "n1"), ("b", "n2")):
        synapse = model.network.get_layer(f"{at}_neurons").synapse
        if container:
            kernel = case.arrays[f"weight/{theirs}.rc.weight"]
            for part, rows, of_it in (
                (model.network.get_layer(f"{at}_in"), slice(16), 2),
                (synapse, slice(16, 32), 1),
            ):
                part.set_weights(
                    [kernel[rows], case.arrays[f"weight/{theirs}.rc.bias"]][:of_it]
                )
                names[part.kernel.path] = f"{theirs}.rc.weight.{rows.stop}"
                case.arrays[f"grad/{theirs}.rc.weight.{rows.stop}"] = case.arrays[
                    f"grad/{theirs}.rc.weight"
                ][rows]
            names[f"{at}_in/bias"] = f"{theirs}.rc.bias"
        else:
            synapse.set_weights(
                [
                    case.arrays[f"weight/{theirs}.recurrent.{kind}"]
                    for kind in ("weight", "bias")
                ]
            )
            names |= {
                synapse.kernel.path: f"{theirs}.recurrent.weight",
                synapse.bias.path: f"{theirs}.recurrent.bias",
            }
    case.assert_agrees(model, names)


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_without_weights_in_the_synapse_it_is_the_plain_network(gradient):
    found = results(gradient, feedback=0.0)
    inputs = keras.Input((6,))
    recurrent, x = network(feedback=0.0), inputs
    for index in range(2):
        x = rsnn.layers.LIF(0.5, 0.5)(layers.Dense(8, name=f"dense_{index}")(x))
    plain = keras.Model(inputs, layers.Dense(3, name="last")(x))
    for name in ("dense_0", "dense_1", "last"):
        plain.get_layer(name).set_weights(recurrent.get_layer(name).get_weights())
    value, gradients = loss_and_gradients(spiking(plain, T, gradient), frames(), Y)
    assert_same(found, {"value": value, **gradients})


def test_one_sweep_carries_errors_through_the_synapse_once():
    """δ_c = g (δ_r + κ V g δ_r) for one neuron: all by hand."""
    inputs = keras.Input((1,))
    back = layers.Dense(1, use_bias=False)
    model = spiking(
        keras.Model(
            inputs,
            rsnn.layers.Recurrent(rsnn.layers.LIF(0.0), back)(layers.Dense(1)(inputs)),
        ),
        4,
        "rate",
    )
    back.set_weights([np.full((1, 1), 0.5)])
    model.network.layers[1].set_weights([np.full((1, 1), 0.75), np.zeros(1)])
    _, gradients = loss_and_gradients(
        model, np.ones((1, 4, 1), "float32"), Y[:1], lambda y, outputs: ops.sum(outputs)
    )
    # Currents 0.75, 0.75 ..., never a spike; without a leak and without memory g is the
    # surrogate's derivative.
    sigmoid = 1 / (1 + np.exp(1.0))
    g = 4 * sigmoid * (1 - sigmoid)
    of_kernel, _, of_back = gradients.values()
    np.testing.assert_allclose(of_kernel, [[g * (1 + 0.75 * 0.5 * g)]], rtol=1e-5)
    np.testing.assert_allclose(of_back, [[0.0]], atol=1e-7)


@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_one_weight_each_is_a_diagonal_kernel(step_mode):
    """With every method: the outputs, and gradients with the diagonal of that of the
    kernel."""
    weights = np.random.default_rng(0).normal(0.0, 0.6, 8).astype("float32")

    def found(synapse, values, gradient):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        x = rsnn.layers.Recurrent(rsnn.layers.LIF(0.5, 0.5), synapse)(
            layers.Dense(8)(inputs)
        )
        model = spiking(
            keras.Model(inputs, layers.Dense(3)(x)), T, gradient, step_mode=step_mode
        )
        synapse.set_weights(values)
        value, gradients = loss_and_gradients(model, frames(), Y)
        of_synapse = next(path for path in gradients if synapse.name in path)
        return value, gradients.pop(of_synapse), list(gradients.values())

    for gradient in ("rate", "bptt"):
        value, of_scale, others = found(
            rsnn.layers.Scale(per_channel=True, name="back"), [weights[None]], gradient
        )
        expected, of_kernel, expected_others = found(
            layers.Dense(8, use_bias=False, name="back"), [np.diag(weights)], gradient
        )
        assert of_scale.any()
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(
            of_scale[0], np.diag(of_kernel), rtol=1e-4, atol=1e-6, err_msg=str(gradient)
        )
        assert_close(
            others, expected_others, rtol=1e-4, atol=1e-6, message=str(gradient)
        )


def test_a_scale_in_half_precision_is_saved_and_its_spikes_are_counted():
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs = keras.Input((3, 8))
    scale = rsnn.layers.Scale(-0.5, per_channel=True, axis=1, name="back")
    x = rsnn.layers.Recurrent(rsnn.layers.LIF(0.5, 0.25), scale, name="neurons")(inputs)
    x = rsnn.layers.Scale(0.5, name="forth")(x)
    model = compiled(
        spiking(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x))), T)
    )
    x = np.random.default_rng(0).uniform(0.0, 1.0, (4, T, 3, 8))
    model.fit(x, Y, verbose=0)
    assert scale.scale.shape == (1, 3, 1)
    assert np.all(to_numpy(scale.scale.value).astype("float32") != -0.5)
    loaded = saved_and_loaded(model)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    found, spikes = (
        rsnn.analysis.energy(model, x),
        rsnn.analysis.raster(model, x, "neurons").spikes,
    )
    of = dict(zip(found.layers, found.accumulates, strict=True))
    np.testing.assert_allclose(of["forth"], spikes.sum() / 4)
    np.testing.assert_allclose(of["neurons/back"], spikes[:, :-1].sum() / 4)


def test_an_axis_without_a_size_has_no_scales():
    for axis, shape in (
        (0, (None, 3)),
        (2, (None, 3)),
        (-1, (None, None)),
        (-2, (4, 3)),
    ):
        with pytest.raises(
            ValueError,
            match="`axis` must be an axis of known size, of the channels. Received: "
            f"axis={axis}",
        ):
            rsnn.layers.Scale(per_channel=True, axis=axis).build(shape)


def test_after_a_gap_nothing_comes_back():
    inputs = keras.Input((1,))
    neurons = rsnn.layers.Recurrent(
        rsnn.layers.LIF(0.0), layers.Dense(1, use_bias=False, kernel_initializer="ones")
    )
    model = spiking(keras.Model(inputs, neurons(inputs)), 4, return_sequences=True)
    x = np.array([[[1.0], [0.0], [0.0], [0.0]]], "float32")
    mask = np.array([[True, True, False, True]])
    for step_mode in STEP_MODES:
        model.step_mode = step_mode
        np.testing.assert_array_equal(to_numpy(model(x))[0, :, 0], [1, 1, 1, 1])
        np.testing.assert_array_equal(
            to_numpy(model(x, mask=mask))[0, :, 0], [1, 1, 0, 0]
        )


@pytest.mark.runs_once
def test_what_cannot_be_recurrent_is_an_error():
    recurrent, lif, dense = rsnn.layers.Recurrent, rsnn.layers.LIF, layers.Dense
    for call, error, message in (
        (
            lambda: recurrent(lif(), dense(3))(keras.Input((4,))),
            ValueError,
            r"shape of the neurons, \(4,\).*returns \(3,\)",
        ),
        (
            lambda: recurrent(lif(), dense(3, activation="relu")),
            ValueError,
            "`synapse` must be a layer that is affine",
        ),
        (
            lambda: recurrent(lif(), layers.BatchNormalization()),
            ValueError,
            "`synapse` must be a layer that is affine",
        ),
        (lambda: recurrent(lif(), 3), TypeError, "`synapse` must be a Layer"),
        (
            lambda: recurrent(dense(3), dense(3)),
            TypeError,
            "`neuron` must be a neuron layer",
        ),
        (
            lambda: recurrent(rsnn.layers.SlidingPSN(2), dense(3)),
            ValueError,
            "whose neurons are parallel",
        ),
        (
            lambda: recurrent(recurrent(lif(), dense(3)), dense(3)),
            ValueError,
            "already recurrent",
        ),
        (
            lambda: recurrent(lif(threshold_stabilizer=True), dense(3)),
            ValueError,
            "threshold_stabilizer",
        ),
        (lambda: spiking(network(), T, "ottt"), ValueError, "ottt"),
    ):
        with pytest.raises(error, match=message):
            call()

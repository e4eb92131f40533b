"""Learned delays: reference cases, whole steps in inference, both step modes, streams.
Padding is in test_time_masks.py."""

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
from keras import layers
from next_cases import NextCase

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate

T = 5
Y = np.array([0, 1, 2, 1])
STEP_MODES = ["multi", "single"]


def network(shape=(6,), sigma=0.5):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    x = rsnn.layers.LIF(0.5, 0.5)(
        layers.Dense(8, name="dense")(
            rsnn.layers.Delay(5, sigma, name="axonal")(inputs)
        )
    )
    x = rsnn.layers.LIF(0.5, 0.5)(
        rsnn.layers.Delay(3, sigma, name="dendritic")(layers.Dense(8, name="other")(x))
    )
    return keras.Model(
        inputs,
        layers.Dense(3, name="last")(x if len(shape) == 1 else layers.Flatten()(x)),
    )


def frames(shape=(6,)):
    return np.random.default_rng(0).normal(0.5, 1.0, (4, T, *shape)).astype("float32")


@pytest.mark.parametrize("gradient", ["bptt", "windows"])
@pytest.mark.parametrize("name", ["delay_axonal_mlp", "delay_dendritic_mlp"])
def test_the_authors_program_agrees(name, gradient):
    case = NextCase(name)
    settings = case.settings

    def hidden(x, synapse, at):
        delay = rsnn.layers.Delay(
            settings["max_delay"], settings["sigma"], name=f"{at}_delay"
        )
        x = synapse(delay(x)) if settings["type"] == "axonal" else delay(synapse(x))
        return rsnn.layers.LIF(settings["decay"], settings["threshold"])(x)

    model = case.model(
        hidden, "bptt" if gradient == "bptt" else Rate(windows=settings["timesteps"])
    )
    names = {}
    for at in "ab":
        position = model.network.get_layer(f"{at}_delay").position
        position.assign(case.arrays[f"weight/{at}.position"][0])
        names[position.path] = f"{at}.position"
    case.assert_agrees(model, names)


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_without_a_delay_it_is_the_plain_network(gradient):
    """A position at the end of the range, and a kernel so narrow that it is one tap."""
    model = spiking(network(), T, gradient)
    x = inputs = keras.Input((6,))
    for name in ("dense", "other"):
        x = rsnn.layers.LIF(0.5, 0.5)(layers.Dense(8, name=name)(x))
    plain = spiking(keras.Model(inputs, layers.Dense(3, name="last")(x)), T, gradient)
    for name in ("dense", "other", "last"):
        plain.network.get_layer(name).set_weights(
            model.network.get_layer(name).get_weights()
        )
    for name, half in (("axonal", 2), ("dendritic", 1)):
        delay = model.network.get_layer(name)
        delay.position.assign(np.full(delay.position.shape, half))
        delay.sigma = 0.0
    model_value, found = loss_and_gradients(model, frames(), Y)
    value, expected = loss_and_gradients(plain, frames(), Y)
    assert model_value == pytest.approx(value, rel=1e-3)
    np.testing.assert_array_equal(to_numpy(model(frames())), to_numpy(plain(frames())))
    if gradient == "bptt":
        # A step in one window also reaches the next ones through the others.
        assert_same(found, expected, rtol=2e-2)


def test_in_inference_delays_are_whole_steps_and_spikes_stay_spikes():
    inputs = keras.Input((3, 2))
    delay = rsnn.layers.Delay(5)
    model = spiking(
        keras.Model(inputs, [delay(rsnn.layers.IF()(inputs))]), T, return_sequences=True
    )
    delay.position.assign([1.6, -0.9])
    x = np.random.default_rng(0).integers(0, 2, (4, T, 3, 2)).astype("float32")
    expected = np.zeros_like(x)
    expected[..., 0] = x[..., 0]
    expected[:, 3:, :, 1] = x[:, :-3, :, 1]
    for step_mode in STEP_MODES:
        model.step_mode = step_mode
        np.testing.assert_array_equal(to_numpy(model(x))[0], expected[0])
    by_step = np.stack([to_numpy(model.step(x[:, t])) for t in range(T)], axis=1)
    np.testing.assert_array_equal(by_step, expected)


def test_recorded_training_in_half_precision_keeps_positions_in_range_and_is_saved():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = compiled(
        spiking(network((3, 3, 2)), T, "bptt"), keras.optimizers.SGD(100.0)
    )
    x, delay = frames((3, 3, 2)), model.network.get_layer("axonal")
    assert delay.position.dtype == "float32"
    before = to_numpy(delay.position.value)
    for _ in range(2):
        model.train_on_batch(x, Y)
    after = to_numpy(delay.position.value)
    assert np.abs(after).max() <= 2.0
    assert not np.array_equal(before, after)
    delay.sigma = 0.25
    again = saved_and_loaded(model)
    assert again.network.get_layer("axonal").sigma == 0.25
    np.testing.assert_array_equal(to_numpy(again(x)), to_numpy(model(x)))


@pytest.mark.runs_once
def test_what_does_not_fit_is_an_error():
    for call, error, message in (
        (
            lambda: rsnn.layers.Delay(4),
            ValueError,
            "`max_delay` must be an odd number of 3 or more.*max_delay=4",
        ),
        (lambda: rsnn.layers.Delay(5, -1.0), ValueError, "`sigma` must be >= 0"),
        (lambda: rsnn.layers.Delay(2.5), TypeError, "`max_delay` must be an integer"),
        (
            lambda: rsnn.layers.Delay(5)(keras.Input((None,))),
            ValueError,
            "whose number of channels is unknown",
        ),
        (
            lambda: rsnn.callbacks.LowerSigma(0),
            ValueError,
            "`epochs` must be 1 or more",
        ),
        (
            lambda: _fit(rsnn.callbacks.LowerSigma(2)),
            ValueError,
            "LowerSigma needs a model with Delay layers",
        ),
        (
            lambda: _fit(rsnn.callbacks.RaiseMask(2)),
            ValueError,
            "RaiseMask needs a model with MaskedPSN layers",
        ),
    ):
        with pytest.raises(error, match=message):
            call()


def _fit(callback):
    compiled(spiking()).fit(np.ones((4, 6)), Y, callbacks=[callback], verbose=0)

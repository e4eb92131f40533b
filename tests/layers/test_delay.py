"""Learned delays: reference cases, whole steps in inference, positions in range."""

import keras
import numpy as np
import pytest
from helpers import (
    both_step_modes,
    chain,
    compiled,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers
from next_cases import NextCase

from keras_ratesnn.layers import IF, LIF, Delay

T = 5
Y = np.array([0, 1, 2, 1])


@pytest.mark.parametrize("name", ["delay_axonal_mlp", "delay_dendritic_mlp"])
def test_the_authors_program_agrees(name):
    case = NextCase(name)
    settings = case.settings

    def hidden(x, synapse, at):
        delay = Delay(settings["max_delay"], settings["sigma"], name=f"{at}_delay")
        x = synapse(delay(x)) if settings["type"] == "axonal" else delay(synapse(x))
        return LIF(settings["decay"], settings["threshold"])(x)

    model = case.dense_model(hidden)
    for at in "ab":
        delay = model.network.get_layer(f"{at}_delay")
        case.load(delay.position, f"{at}.position")
    case.assert_agrees(model)


@both_step_modes
def test_in_inference_delays_are_whole_steps_and_spikes_stay_spikes(step_mode):
    delay = Delay(5)
    network = chain(IF(), delay, shape=(3, 2))
    model = spiking(network, T, step_mode=step_mode, return_sequences=True)
    delay.position.assign([1.6, -0.9])
    x = np.random.default_rng(0).integers(0, 2, (4, T, 3, 2)).astype("float32")
    expected = np.zeros_like(x)
    expected[..., 0] = x[..., 0]
    expected[:, 3:, :, 1] = x[:, :-3, :, 1]
    np.testing.assert_array_equal(to_numpy(model(x)), expected)


def test_recorded_training_in_half_precision_keeps_positions_in_range_and_is_saved():
    keras.config.set_dtype_policy("mixed_bfloat16")
    delay = Delay(5, name="delay")
    delay.sigma = 0.5
    assert delay.sigma == 0.5
    parts = [layers.Dense(8), LIF(0.5, 0.5), layers.Flatten(), layers.Dense(3)]
    network = chain(delay, *parts, shape=(3, 2))
    model = compiled(spiking(network, T, "bptt"), keras.optimizers.SGD(100.0))
    x = np.random.default_rng(0).normal(0.5, 1.0, (4, T, 3, 2)).astype("float32")
    before = to_numpy(delay.position.value)
    assert delay.sigma == 0.5
    for _ in range(2):
        model.train_on_batch(x, Y)
    after = to_numpy(delay.position.value)
    assert after.dtype == "float32"
    assert np.abs(after).max() <= 2.0
    assert not np.array_equal(before, after)
    delay.sigma = 0.25
    again = saved_and_loaded(model)
    assert again.network.get_layer("delay").sigma == 0.25
    np.testing.assert_array_equal(to_numpy(again(x)), to_numpy(model(x)))

"""Calls of a model outside of compiled functions: their numbers, and what they leave
out."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_close, to_numpy, training_results
from keras import layers, ops

import keras_ratesnn as rsnn


class Counted(rsnn.surrogates.Sigmoid):
    """A surrogate that counts how often its derivative is computed."""

    calls = 0

    def derivative(self, distance):
        type(self).calls += 1
        return super().derivative(distance)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(0.0, 2.0, (4, 5)).astype("float32")


def small(**arguments):
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(8),
            layers.BatchNormalization(momentum=0.5),
            rsnn.layers.LIF(learn_threshold=True, surrogate=Counted(), name="neurons"),
            layers.Dropout(0.5, seed=1),
            layers.Dense(3),
        ]
    )
    return rsnn.SpikingModel(network, **{"timesteps": 4} | arguments)


def untracked(model, x, **options):
    """The outputs of a call that nothing differentiates."""
    if BACKEND != "torch":
        return to_numpy(model(x, **options))
    import torch

    with torch.no_grad():
        return to_numpy(model(x, **options))


def squares(y, outputs):
    return ops.sum(outputs**2)


@pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "multi"), ("bptt", "single")]
)
def test_a_training_call_that_nothing_differentiates_gives_the_same_numbers(
    x, gradient, step_mode
):
    model, twin = (small(gradient=gradient, step_mode=step_mode) for _ in range(2))
    _, gradients, expected = training_results(twin, x, x, squares)
    assert any(np.any(by_weight) for by_weight in gradients.values())
    outputs = untracked(model, x, training=True)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    assert_close(model.variables, list(map(to_numpy, twin.variables)), rtol=1e-6)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_call_in_inference_that_nothing_differentiates_has_no_derivative(
    x, step_mode
):
    model = small(step_mode=step_mode)
    Counted.calls = 0
    outputs = untracked(model, x)
    assert Counted.calls == 0
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), rtol=1e-5)


def test_a_call_follows_what_is_assigned_to_a_model_and_to_its_neurons(x):
    model = small()
    for change in (
        lambda: setattr(model, "timesteps", 7),
        lambda: model.get_layer("neurons").set_threshold(0.5),
        lambda: setattr(model, "return_sequences", True),
    ):
        before = to_numpy(model(x))
        change()
        outputs = to_numpy(model(x))
        assert not np.array_equal(outputs, before)
        np.testing.assert_allclose(outputs, model.predict(x, verbose=0), rtol=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="elsewhere calls compile no loops")
def test_a_second_call_compiles_nothing(x):
    import jax

    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: events.append(event)
    )
    for step_mode in ("multi", "single"):
        model = small(step_mode=step_mode)
        for training in (False, True):
            model(x, training=training)
            events.clear()
            model(x, training=training)
            assert not [event for event in events if "compile" in event]

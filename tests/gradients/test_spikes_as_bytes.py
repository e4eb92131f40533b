"""Spikes that wait as bytes, in programs that JAX compiles for GPUs."""

import keras
import numpy as np
import pytest
from helpers import only_on

import keras_ratesnn as rsnn
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients import Rate

pytestmark = only_on("jax", "only JAX lets spikes wait as bytes")


def _differentiated(network, arguments, x, mask):
    """The sum of squared outputs with its gradient, and how many bytes wait for the
    backward pass, in a program for a GPU."""
    import jax

    model = rsnn.SpikingModel(network, **arguments)
    weights = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]

    def loss(weights):
        outputs, _ = model.stateless_call(weights, fixed, x, mask=mask, training=True)
        return keras.ops.sum(keras.ops.square(outputs))

    with rsnn.engine_settings(platform="cuda"):
        value, pull = jax.vjp(loss, weights)
        waiting = sum(leaf.nbytes for leaf in jax.tree.leaves(pull))
        return [value, *pull(value)[0]], waiting


@pytest.mark.parametrize(
    ("neuron", "arguments", "is_padded"),
    [
        (rsnn.layers.LIF, {"gradient": "rate"}, False),
        (rsnn.layers.LIF, {"gradient": Rate(windows=2)}, True),
        (lambda: rsnn.layers.ILIF(levels=3), {"gradient": "rate"}, False),
    ],
)
def test_spikes_that_wait_as_bytes_take_less_memory_and_change_no_number(
    neuron, arguments, is_padded, monkeypatch
):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    shortcut = neuron()(keras.layers.Conv2D(4, 3, padding="same")(inputs))
    y = neuron()(keras.layers.Conv2D(4, 3, padding="same")(shortcut))
    y = keras.layers.ZeroPadding2D()(y)
    y = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(y))
    y = neuron()(keras.layers.Add()([shortcut, y]))
    network = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(y)))
    draw = np.random.default_rng(0).normal
    x = draw(0.5, 1.0, size=(4, 3, 6, 6, 2)).astype("float32")
    mask = np.array([[1, 1, 1], [1, 1, 0]] * 2, "bool") if is_padded else None
    of = network, {"timesteps": 3, **arguments}, x, mask
    found, waiting = _differentiated(*of)
    monkeypatch.setattr(engine, "spikes_wait_as_bytes", lambda: False)
    expected, as_floats = _differentiated(*of)
    assert waiting < 0.95 * as_floats
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_spikes_whose_sums_do_not_fit_into_bytes_stay_floats(monkeypatch):
    network = keras.Sequential(
        [keras.Input((2,)), rsnn.layers.ILIF(levels=100), keras.layers.Dense(1)]
    )
    x = np.full((1, 3, 2), 300.0, "float32")
    of = network, {"timesteps": 3, "gradient": "rate"}, x, None
    found, _ = _differentiated(*of)
    monkeypatch.setattr(engine, "spikes_wait_as_bytes", lambda: False)
    expected, _ = _differentiated(*of)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)

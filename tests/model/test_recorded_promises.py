"""What a model may meet, in recorded calls: it trains as in eager mode, on PyTorch."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, data, double_precision, mlp
from keras import layers, ops

import keras_ratesnn as rsnn

if BACKEND != "torch":
    pytest.skip(
        "other backends compile whole functions themselves", allow_module_level=True
    )

from recorded_calls import assert_equal_state, pair, recording

FRAMES, Y = data(4, (2, 4, 2))
PADDED = FRAMES.copy()
PADDED[1:3, 1:] = np.nan


class AddsMean(layers.Layer):
    """Adds a loss, draws numbers, and takes the time step."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs, time_step=None):
        self.add_loss(ops.mean(inputs))
        noise = keras.random.uniform(ops.shape(inputs), seed=self.generator)
        return inputs + 0.1 * ops.cast(noise, inputs.dtype)


def with_losses():
    inputs = keras.Input((4, 2))
    spikes = rsnn.layers.LIF(activity_regularizer="l1")(layers.Dense(5)(inputs))
    x = layers.Dense(5, activity_regularizer="l2")(AddsMean()(spikes))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def with_masks():
    inputs = keras.Input((4, 2))
    x = layers.BatchNormalization()(layers.Masking()(inputs))
    x = rsnn.layers.LIF(threshold=0.3)(layers.Dense(5)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def shared():
    """Layers that are used twice, once in a network of their own, and a mean of
    time."""
    inputs = keras.Input((4, 2))
    dense, neurons = layers.Dense(8), rsnn.layers.LIF(threshold=0.3)
    block = keras.Sequential([keras.Input((8,)), dense, neurons])
    x = neurons(dense(block(layers.Flatten()(inputs))))
    return keras.Model(inputs, layers.Dense(3)(rsnn.layers.TimeMean()(x)))


def frozen():
    network = with_masks()
    for layer in network.layers[:4]:
        layer.trainable = False
    return network


def adapted():
    """By low rank."""
    network = mlp()
    for layer in (network.layers[1], network.layers[-1]):
        layer.enable_lora(2)
    inputs = keras.Input((4, 2))
    return keras.Model(inputs, network(layers.Flatten()(inputs)[:, :6]))


@pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "multi"), ("bptt", "single")]
)
@pytest.mark.parametrize("make", [with_losses, with_masks, shared, frozen, adapted])
def test_recorded_calls_train_as_in_eager_mode(make, gradient, step_mode):
    x = PADDED if make in (with_masks, frozen) else FRAMES
    arguments = {"gradient": gradient, "step_mode": step_mode, "mask_value": np.nan}
    with double_precision(), recording():
        models = pair(make, 2, **arguments)
        for _ in range(3):
            losses = [model.train_on_batch(x.astype("float64"), Y) for model in models]
            assert losses[1] == pytest.approx(losses[0], rel=1e-9)
            assert_equal_state(*models)
        assert models[1].engine == "recorded"

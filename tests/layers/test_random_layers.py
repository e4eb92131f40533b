"""Layers that draw random numbers draw once per batch: the same for all steps of a
sample, and for its rate."""

import keras
import numpy as np
import pytest
from helpers import data, spiking, to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn

SEED = 7


@keras.saving.register_keras_serializable(package="tests")
class DropPath(layers.Layer):
    """Stochastic depth: drops whole samples, like many custom layers."""

    def __init__(self, rate=0.5, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.seed = rate, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=None):
        if not training:
            return inputs
        shape = (ops.shape(inputs)[0], *([1] * (len(inputs.shape) - 1)))
        kept = keras.random.uniform(shape, seed=self.generator) >= self.rate
        return inputs * ops.cast(kept, inputs.dtype) / (1.0 - self.rate)


RANDOM = {
    "dropout": lambda: layers.Dropout(0.5, seed=SEED),
    "alpha dropout": lambda: layers.AlphaDropout(0.5, seed=SEED),
    "drop path": lambda: DropPath(0.5, SEED),
}


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("name", RANDOM)
def test_all_steps_of_a_sample_see_the_same_numbers_and_each_batch_others(
    name, step_mode
):
    inputs = keras.Input((16,))
    network = keras.Model(inputs, RANDOM[name]()(rsnn.layers.LIF()(inputs)))
    model = spiking(network, 5, "rate", step_mode=step_mode, return_sequences=True)
    batches = [
        to_numpy(model(np.full((9, 16), 2.0, "float32"), training=True))
        for _ in range(2)
    ]
    for batch in batches:
        np.testing.assert_allclose(batch, np.repeat(batch[:, :1], 5, axis=1), rtol=1e-6)
        assert np.ptp(batch) > 0
    assert (batches[0] != batches[1]).any()


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_image_augmentation_is_the_same_for_all_frames_of_a_sample(step_mode):
    inputs = keras.Input((4, 4, 1))
    network = keras.Model(
        inputs,
        rsnn.layers.IF(threshold=0.5)(
            layers.RandomFlip("horizontal", seed=SEED)(inputs)
        ),
    )
    model = spiking(network, 6, step_mode=step_mode, return_sequences=True)
    frames = np.zeros((12, 6, 4, 4, 1), "float32")
    frames[:, :, :, 0] = 1.0
    flipped = to_numpy(model(frames, training=True))[:, :, 0, 3, 0] == 1.0
    assert 0 < flipped[:, 0].sum() < 12
    np.testing.assert_array_equal(flipped, np.repeat(flipped[:, :1], 6, axis=1))


# State of another kind than random numbers.
@keras.saving.register_keras_serializable(package="tests")
class Scaled(layers.BatchNormalization):
    """A custom normalisation: Keras' output times five."""

    def call(self, inputs, training=None, mask=None):
        return 5.0 * super().call(inputs, training=training, mask=mask)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_subclass_of_batch_normalization_with_its_own_call_is_run(
    gradient, step_mode
):
    inputs = keras.Input((6,))
    norm = Scaled(momentum=0.0)
    network = keras.Model(inputs, norm(rsnn.layers.LIF()(layers.Dense(6)(inputs))))
    x, _ = data(64)
    model = spiking(network, 4, gradient, step_mode=step_mode)
    spikes = spiking(
        keras.Model(inputs, network.layers[2].output), 4, return_sequences=True
    ).predict(x, verbose=0)
    outputs = to_numpy(model(x, training=True))
    rates = spikes.mean(axis=1)
    if step_mode == "multi":
        expected = (
            5.0
            * (rates - spikes.mean(axis=(0, 1)))
            / np.sqrt(spikes.var(axis=(0, 1)) + norm.epsilon)
        )
        np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)
    # The statistics of spikes, and not those of the rate, are what it has seen last.
    last = spikes if step_mode == "multi" else spikes[:, -1:]
    np.testing.assert_allclose(
        to_numpy(norm.moving_mean), last.mean(axis=(0, 1)), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        to_numpy(norm.moving_variance), last.var(axis=(0, 1)), rtol=1e-3, atol=1e-5
    )


@keras.saving.register_keras_serializable(package="tests")
class Halved(layers.Dropout):
    """A custom dropout that halves its output."""

    def call(self, inputs, training=False):
        return 0.5 * super().call(inputs, training=training)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_subclass_of_dropout_with_its_own_call_is_run(step_mode):
    inputs = keras.Input((16,))
    network = keras.Model(inputs, Halved(0.5)(rsnn.layers.LIF()(inputs)))
    outputs = to_numpy(
        spiking(network, 4, step_mode=step_mode)(
            np.full((9, 16), 2.0, "float32"), training=True
        )
    )
    assert set(np.unique(outputs)) == {0.0, 1.0}

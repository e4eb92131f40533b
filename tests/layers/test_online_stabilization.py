"""Online renormalisation and the threshold stabilizer, against loops in NumPy and with
every method."""

import contextlib

import keras
import numpy as np
import pytest
from helpers import (
    compiled,
    data,
    double_precision,
    gradient_of,
    loss_and_gradients,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, OnlineRenormalization

EPSILON = 1e-3
DECAY = 0.5


class Slow:
    """One layer of each in NumPy: renormalised currents, and neurons whose thresholds
    follow their membranes.

    In multi-step mode a batch's own statistics are those of all steps.
    """

    def __init__(self, features, step_mode):
        self.sees_all_steps = step_mode == "multi"
        self.mean, self.variance, self.threshold = (
            np.zeros(features),
            np.ones(features),
            1.0,
        )

    def __call__(self, frames, training):
        """Spikes `(T, batch, features)` of frames of that shape."""
        membranes, spikes, thresholds = np.zeros(frames.shape[1:]), [], []
        for frame in frames:
            membranes = DECAY * membranes + self.normalized(
                frame,
                np.concatenate(frames) if self.sees_all_steps else frame,
                training,
            )
            if not training:
                thresholds.append(self.threshold)
            elif not thresholds:
                ratio = (1.0 - membranes.mean()) / membranes.std()
                thresholds.append(1.0)
            else:
                thresholds.append(membranes.mean() + ratio * membranes.std())
            spikes.append((membranes >= thresholds[-1]) * 1.0)
            membranes = membranes - thresholds[-1] * spikes[-1]
        if training:
            values = frames.reshape(-1, frames.shape[-1])
            self.mean = 0.9 * self.mean + 0.1 * values.mean(axis=0)
            self.variance = 0.9 * self.variance + 0.1 * values.var(axis=0)
            self.threshold = 0.9 * self.threshold + 0.1 * np.mean(thresholds)
        return np.stack(spikes)

    def normalized(self, frame, batch, training):
        running = np.sqrt(self.variance + EPSILON)
        own = np.sqrt(batch.var(axis=0) + EPSILON)
        outside = training & ((own / running < 1 / 20) | (own / running > 20))
        return np.where(
            outside, (frame - batch.mean(axis=0)) / own, (frame - self.mean) / running
        )


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("sltt", "multi"), ("sltt", "single"), ("bptt", "multi")],
)
def test_two_batches_and_inference_are_those_of_a_loop(gradient, step_mode):
    random = np.random.default_rng(0)
    # The third feature varies so little, and the fourth so much, that the statistics of
    # the batch serve.
    scale = np.array([1.0, 2.0, 0.01, 60.0])
    batches = [random.normal(1.0, 1.0, (4, 16, 4)) * scale for _ in range(3)]
    inputs = keras.Input((4,))
    normalize, neurons = OnlineRenormalization(), LIF(DECAY, threshold_stabilizer=True)
    network = keras.Model(inputs, neurons(normalize(inputs)))
    model = rsnn.SpikingModel(
        network, 4, gradient, step_mode=step_mode, return_sequences=True
    )
    slow = Slow(4, step_mode)
    for frames in batches[:2]:
        _, _, outputs = training_results(
            model,
            np.swapaxes(frames, 0, 1).astype("float32"),
            np.zeros(16),
            lambda y, o: ops.sum(o),
        )
        np.testing.assert_array_equal(
            outputs, np.swapaxes(slow(frames, training=True), 0, 1)
        )
        np.testing.assert_allclose(
            to_numpy(normalize.moving_mean), slow.mean, rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(
            to_numpy(normalize.moving_variance), slow.variance, rtol=1e-4
        )
        np.testing.assert_allclose(
            to_numpy(neurons.stabilizer.running_threshold), slow.threshold, rtol=1e-4
        )
    assert slow.threshold != 1.0
    x = np.swapaxes(batches[2], 0, 1).astype("float32")
    outputs = model.predict(x, verbose=0)
    np.testing.assert_array_equal(
        outputs, np.swapaxes(slow(batches[2], training=False), 0, 1)
    )
    for t in range(4):
        np.testing.assert_array_equal(to_numpy(model.step(x[:, t])), outputs[:, t])


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_static_input_updates_the_statistics_once(step_mode):
    x, y = data(16)
    inputs = keras.Input((6,))
    layer = OnlineRenormalization()
    model = spiking(
        keras.Model(inputs, layers.Dense(3)(LIF()(layer(inputs)))),
        4,
        "sltt",
        step_mode=step_mode,
    )
    loss_and_gradients(model, x, y)
    np.testing.assert_allclose(
        to_numpy(layer.moving_mean), 0.1 * x.mean(axis=0), rtol=1e-4
    )


def test_the_derivative_is_that_of_batch_statistics_scaled_to_the_running_ones():
    x, weight = np.random.default_rng(1).normal(1.0, 2.0, (2, 8, 3)).astype("float32")
    inputs = keras.Input((3,))
    layer = OnlineRenormalization(gamma_initializer="random_uniform")
    model = spiking(
        keras.Model(inputs, layers.Flatten()(layer(LIF(threshold=0.1)(inputs)))),
        1,
        "sltt",
    )
    (_,) = gradient_of(lambda x: ops.sum(model(x, training=True)), [x])
    layer.moving_mean.assign(np.full(3, 0.5))
    layer.moving_variance.assign(np.full(3, 4.0))
    (found,) = gradient_of(
        lambda x: ops.sum(layer(x, training=True) * ops.convert_to_tensor(weight)), [x]
    )
    deviation, running = np.sqrt(x.var(axis=0) + EPSILON), np.sqrt(4.0 + EPSILON)
    normal = (x - x.mean(axis=0)) / deviation
    inner = weight - weight.mean(axis=0) - normal * (weight * normal).mean(axis=0)
    expected = to_numpy(layer.gamma) / deviation * inner * deviation / running
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def stabilized(policy=None):
    inputs = keras.Input((6,), dtype=policy and "float32")
    x = LIF(threshold_stabilizer=True)(OnlineRenormalization()(layers.Dense(8)(inputs)))
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("sltt", "single"), ("rate", "multi"), ("rate", "single")],
)
def test_renormalisation_after_neurons_trains_in_double_precision(gradient, step_mode):
    x, y = data(16)
    weights, found = None, []
    for precision in (contextlib.nullcontext, double_precision):
        with precision():
            inputs = keras.Input((6,))
            renormalization = OnlineRenormalization()
            currents = renormalization(layers.Dense(5)(LIF()(layers.Dense(8)(inputs))))
            model = spiking(
                keras.Model(inputs, layers.Dense(3)(LIF()(currents))),
                4,
                gradient,
                step_mode=step_mode,
            )
            weights = weights or model.get_weights()
            model.set_weights(weights)
            compiled(model, "sgd").fit(x, y, verbose=0)
            found.append(
                [
                    to_numpy(statistic)
                    for statistic in (
                        renormalization.moving_mean,
                        renormalization.moving_variance,
                    )
                ]
            )
    for single, double in zip(*found, strict=True):
        assert double.dtype == "float64"
        np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5)


def test_a_stabilized_layer_called_by_itself_fires_as_in_one_step_of_a_model():
    inputs = keras.Input((3,))
    neurons = LIF(threshold_stabilizer=True)
    network = keras.Model(inputs, neurons(inputs))
    neurons.stabilizer.running_threshold.assign(2.0)
    x = np.array([[0.5, 1.5, 2.5]], "float32")
    np.testing.assert_array_equal(
        to_numpy(spiking(network, 1, "sltt")(x)), [[0.0, 0.0, 1.0]]
    )
    np.testing.assert_array_equal(to_numpy(network(x)), [[0.0, 0.0, 1.0]])


def test_a_layer_that_nothing_reaches_at_first_follows_its_membranes_when_they_differ():
    frames = np.random.default_rng(0).normal(0.5, 1.0, (4, 12, 6)).astype("float32")
    inputs = keras.Input((6,))
    neurons = LIF(DECAY, threshold_stabilizer=True)
    model = spiking(
        keras.Model(inputs, neurons(inputs)),
        4,
        "sltt",
        step_mode="single",
        return_sequences=True,
    )

    def spikes_and_threshold(frames):
        neurons.stabilizer.running_threshold.assign(1.0)
        outputs = to_numpy(model(np.swapaxes(frames, 0, 1), training=True))
        return np.swapaxes(outputs, 0, 1), float(
            to_numpy(neurons.stabilizer.running_threshold)
        )

    late = np.concatenate([np.zeros_like(frames[:1]), frames[:3]])
    expected, _ = spikes_and_threshold(frames)
    found, threshold = spikes_and_threshold(late)
    np.testing.assert_array_equal(
        found, np.concatenate([np.zeros_like(frames[:1]), expected[:3]])
    )
    assert found[1:].any(axis=(1, 2)).all()
    assert 0.5 < threshold < 2.0


def test_errors_say_what_to_do():
    with pytest.raises(
        ValueError, match=r'threshold_stabilizer=True.*Train with gradient="sltt"'
    ):
        spiking(stabilized(), 4, "rate")
    with pytest.raises(ValueError, match="Received: learn_threshold=True"):
        LIF(threshold_stabilizer=True, learn_threshold=True)
    with pytest.raises(TypeError, match="threshold_stabilizer"):
        LIF(threshold_stabilizer=1)
    with pytest.raises(ValueError, match="`renorm` must be False"):
        OnlineRenormalization(renorm=True)

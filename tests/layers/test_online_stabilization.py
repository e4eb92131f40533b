"""Online renormalisation and the threshold stabilizer, against loops in NumPy."""

import keras
import numpy as np
import pytest
from helpers import (
    chain,
    data,
    double_precision,
    gradient_of,
    spiking,
    to_numpy,
    training_results,
)
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn.layers import LIF, OnlineRenormalization

EPSILON = 1e-3
DECAY = 0.5


class Slow:
    """One layer of each in NumPy: renormalised currents, and neurons whose thresholds
    follow their membranes.

    In multi-step mode a batch's own statistics are those of all steps.
    """

    mean, variance, threshold = 0.0, 1.0, 1.0

    def __init__(self, step_mode):
        self.sees_all_steps = step_mode == "multi"

    def __call__(self, frames, training):
        """Spikes `(T, batch, features)` of frames of that shape."""
        rows = np.concatenate(frames)
        membranes, spikes, thresholds = 0.0, [], []
        for frame in frames:
            batch = rows if self.sees_all_steps else frame
            membranes = DECAY * membranes + self.normalized(frame, batch, training)
            threshold = self.threshold
            if training and not thresholds:
                threshold = 1.0
                ratio = (1.0 - membranes.mean()) / membranes.std()
            elif training:
                threshold = membranes.mean() + ratio * membranes.std()
            thresholds.append(threshold)
            spikes.append((membranes >= threshold) * 1.0)
            membranes = membranes - threshold * spikes[-1]
        if training:
            self.mean = 0.9 * self.mean + 0.1 * rows.mean(axis=0)
            self.variance = 0.9 * self.variance + 0.1 * rows.var(axis=0)
            self.threshold = 0.9 * self.threshold + 0.1 * np.mean(thresholds)
        return np.stack(spikes)

    def normalized(self, frame, batch, training):
        running = np.sqrt(self.variance + EPSILON)
        own = np.sqrt(batch.var(axis=0) + EPSILON)
        is_outside = training & ((own / running < 1 / 20) | (own / running > 20))
        by_batch = (frame - batch.mean(axis=0)) / own
        return np.where(is_outside, by_batch, (frame - self.mean) / running)


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("bptt", "multi"), ("sltt", "single")],
)
def test_two_batches_and_inference_are_those_of_a_loop(gradient, step_mode):
    random = np.random.default_rng(0)
    # The third feature varies so little, and the fourth so much, that the statistics of
    # the batch serve.
    scale = np.array([1.0, 2.0, 0.01, 60.0])
    *batches, last = random.normal(1.0, 1.0, (3, 4, 16, 4)) * scale
    normalize, neurons = OnlineRenormalization(), LIF(DECAY, threshold_stabilizer=True)
    network = chain(normalize, neurons, shape=(4,))
    model = spiking(network, 4, gradient, step_mode=step_mode, return_sequences=True)
    slow = Slow(step_mode)
    for frames in batches:
        x = np.swapaxes(frames, 0, 1).astype("float32")
        _, _, outputs = training_results(
            model, x, np.zeros(16), lambda y, outputs: ops.sum(outputs)
        )
        spikes = slow(frames, training=True)
        assert_array_equal(np.swapaxes(outputs, 0, 1), spikes)
        for variable, expected in (
            (normalize.moving_mean, slow.mean),
            (normalize.moving_variance, slow.variance),
            (neurons.stabilizer.running_threshold, slow.threshold),
        ):
            assert_allclose(to_numpy(variable), expected, rtol=1e-4, atol=1e-6)
    assert slow.threshold != 1.0
    x = np.swapaxes(last, 0, 1).astype("float32")
    outputs = model.predict(x, verbose=0)
    spikes = slow(last, training=False)
    assert_array_equal(np.swapaxes(outputs, 0, 1), spikes)
    for t in range(4):
        assert_array_equal(to_numpy(model.step(x[:, t])), outputs[:, t])


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("sltt", "multi"), ("rate", "single")],
)
def test_a_batch_updates_the_statistics_once(gradient, step_mode):
    """Also where the input is the same at every step, and after neurons."""
    with double_precision():
        x, y = data(16)
        inputs = keras.Input((6,), dtype="float64")
        first, second = OnlineRenormalization(), OnlineRenormalization()
        spikes = LIF()(first(inputs))
        network = keras.Model(inputs, [LIF()(second(spikes)), spikes])
        model = spiking(network, 4, gradient, step_mode=step_mode)
        _, _, (_, rates) = training_results(
            model, x, y, lambda y, outputs: ops.sum(outputs[0])
        )
        # Spikes are their own squares.
        variance = rates.mean(axis=0) - rates.mean(axis=0) ** 2
        for variable, expected in (
            (first.moving_mean, 0.1 * x.mean(axis=0)),
            (first.moving_variance, 0.9 + 0.1 * x.var(axis=0)),
            (second.moving_mean, 0.1 * rates.mean(axis=0)),
            (second.moving_variance, 0.9 + 0.1 * variance),
        ):
            found = to_numpy(variable)
            assert found.dtype == "float64"
            assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_the_derivative_is_that_of_batch_statistics_scaled_to_the_running_ones():
    x, weight = np.random.default_rng(1).normal(1.0, 2.0, (2, 8, 3)).astype("float32")
    layer = OnlineRenormalization(gamma_initializer="random_uniform")
    layer.build((None, 3))
    layer.moving_mean.assign(np.full(3, 0.5))
    layer.moving_variance.assign(np.full(3, 4.0))
    (found,) = gradient_of(
        lambda x: ops.sum(layer(x, training=True) * ops.convert_to_tensor(weight)), [x]
    )
    deviation, running = np.sqrt(x.var(axis=0) + EPSILON), np.sqrt(4.0 + EPSILON)
    normal = (x - x.mean(axis=0)) / deviation
    inner = weight - weight.mean(axis=0) - normal * (weight * normal).mean(axis=0)
    expected = to_numpy(layer.gamma) / running * inner
    assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_a_layer_that_nothing_reaches_at_first_follows_its_membranes_when_they_differ():
    frames = np.random.default_rng(0).normal(0.5, 1.0, (12, 4, 6)).astype("float32")
    neurons = LIF(DECAY, threshold_stabilizer=True)
    options = {"step_mode": "single", "return_sequences": True}
    model = spiking(chain(neurons), 4, "sltt", **options)
    expected = to_numpy(model(frames, training=True))
    neurons.stabilizer.running_threshold.assign(1.0)
    late = np.concatenate([np.zeros_like(frames[:, :1]), frames[:, :3]], axis=1)
    found = to_numpy(model(late, training=True))
    assert_array_equal(found[:, 1:], expected[:, :3])
    assert not found[:, 0].any()
    assert found[:, 1:].any(axis=(0, 2)).all()
    assert 0.5 < float(to_numpy(neurons.stabilizer.running_threshold)) < 2.0

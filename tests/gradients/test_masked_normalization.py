"""Batch normalisation of masked rows: they count in no statistics, as in Keras, with
every method and in both step modes."""

import functools

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    loss_and_gradients,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import SLTT, Rate
from keras_ratesnn.layers import OnlineRenormalization

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not support masking and will therefore destroy"
)

T = 3
Y = np.arange(6) % 3
METHODS = {
    "multi": ["rate", "bptt", "sltt"],
    "single": ["rate", SLTT(recompute=False), "ottt"],
}
LAYERS = [
    lambda: layers.BatchNormalization(momentum=0.5, epsilon=1e-5),
    lambda: rsnn.layers.ThresholdDependentBatchNormalization(
        momentum=0.5, epsilon=1e-5
    ),
    lambda: rsnn.layers.TemporalEffectiveBatchNormalization(
        T, momentum=0.5, epsilon=1e-5
    ),
    lambda: OnlineRenormalization(momentum=0.5, epsilon=1e-5),
]


def frames_of(timesteps, constant=False):
    """Frames of five rows each, `(6, T, 5, 4)`; some rows are 0, for `Masking`, and
    which may change from step to step."""
    random = np.random.default_rng(0)
    frames = random.normal(2.0, 1.0, (6, timesteps, 5, 4))
    frames[random.random((6, timesteps, 5)) < 0.4] = 0.0
    return (
        np.repeat(frames[:, :1], timesteps, axis=1).astype("float32")
        if constant
        else frames.astype("float32")
    )


def network_of(makes, decay=0.2):
    """For each layer, neurons after it, and attention to their masked spikes; the layer
    sees masked frames, and spikes."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4))
    branches = []
    for make in makes:
        x = rsnn.layers.LIF(decay, 0.1)(make()(layers.Masking()(inputs)))
        x = rsnn.layers.LIF(decay, 0.1)(make()(layers.Dense(4)(x)))
        branches.append(layers.Flatten()(layers.Attention()([x, x])))
    x = layers.Concatenate()(branches) if len(branches) > 1 else branches[0]
    return keras.Model(inputs, layers.Dense(3)(x))


def results_of(model, frames, plain=False):
    """The loss, the gradients and the moving averages after a batch; without the
    factors of steps, which Keras has not."""
    value, gradients = loss_and_gradients(model, frames, Y)
    gradients = [
        gradient for path, gradient in gradients.items() if "step_factors" not in path
    ]
    return [
        value,
        *gradients,
        *map(to_numpy, (model if plain else model.network).non_trainable_variables),
    ]


def assert_same(found, expected, of, rtol=1e-3):
    assert_close(found, expected, rtol=rtol, atol=0.05 * rtol, message=str(of))


@functools.cache
def by_keras():
    return results_of(network_of(LAYERS), frames_of(1)[:, 0], plain=True)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_one_step_is_that_of_keras(step_mode):
    frames, expected = frames_of(1), by_keras()
    for method in METHODS[step_mode]:
        assert_same(
            results_of(
                spiking(network_of(LAYERS), 1, method, step_mode=step_mode), frames
            ),
            expected,
            method,
        )


def test_a_renormalisation_is_that_of_keras():
    frames, make = frames_of(1), lambda: layers.BatchNormalization(renorm=True)
    expected = results_of(network_of([make]), frames[:, 0], plain=True)
    found = results_of(spiking(network_of([make]), 1, "bptt"), frames)
    assert_same(found, expected, "bptt")


@pytest.mark.parametrize(
    ("step_mode", "methods"),
    # The authors' program adds ε twice.
    [
        ("multi", {"rate": 1e-3, Rate(windows=2): 1e-3}),
        ("single", {"rate": 1e-3, Rate(last_step_statistics=True): 1e-2}),
    ],
)
def test_the_rate_gradient_is_that_of_bptt_where_all_steps_are_alike(
    step_mode, methods
):
    """Neurons without memory, on the same frame at each step."""
    frames, of = frames_of(T, constant=True), LAYERS[::3]
    expected = results_of(
        spiking(network_of(of, 0.0), T, "bptt", step_mode=step_mode), frames
    )
    for method, rtol in methods.items():
        model = spiking(network_of(of, 0.0), T, method, step_mode=step_mode)
        assert_same(results_of(model, frames), expected, method, rtol)


def masked_statistics(frames):
    rows = frames[frames.any(axis=-1)]
    return rows.mean(axis=0), rows.var(axis=0)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_moving_averages_follow_the_rows_that_are_not_masked(step_mode):
    """Of all steps at once, or of each step in turn; those of online renormalisation
    always of all steps."""
    frames = frames_of(T)
    inputs = keras.Input((5, 4))
    by_batch, online = (
        layers.BatchNormalization(momentum=0.5),
        OnlineRenormalization(momentum=0.5),
    )
    masked = layers.Masking()(inputs)
    network = keras.Model(
        inputs, rsnn.layers.LIF()(layers.Add()([by_batch(masked), online(masked)]))
    )
    training_results(
        spiking(network, T, "sltt", step_mode=step_mode),
        frames,
        Y,
        lambda y, outputs: ops.sum(outputs),
    )
    mean, variance = np.zeros(4), np.ones(4)
    for part in [frames] if step_mode == "multi" else np.moveaxis(frames, 1, 0):
        of_part = masked_statistics(part)
        mean, variance = 0.5 * (mean + of_part[0]), 0.5 * (variance + of_part[1])
    np.testing.assert_allclose(to_numpy(by_batch.moving_mean), mean, rtol=1e-4)
    np.testing.assert_allclose(to_numpy(by_batch.moving_variance), variance, rtol=1e-4)
    mean, variance = masked_statistics(frames)
    np.testing.assert_allclose(to_numpy(online.moving_mean), 0.5 * mean, rtol=1e-4)
    np.testing.assert_allclose(
        to_numpy(online.moving_variance), 0.5 + 0.5 * variance, rtol=1e-4
    )


def test_online_renormalisation_by_itself_leaves_masked_rows_out():
    frames = frames_of(1)[:, 0]
    layer = OnlineRenormalization(momentum=0.0)
    layer(frames, training=True, mask=frames.any(axis=-1))
    mean, variance = masked_statistics(frames)
    assert_same([layer.moving_mean, layer.moving_variance], [mean, variance], "")
    outputs = layer(frames, training=True, mask=frames.any(axis=-1))
    assert_same([outputs], [(frames - mean) / np.sqrt(variance + layer.epsilon)], "")


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_batch_that_is_all_masked_has_finite_results(step_mode):
    model = spiking(network_of(LAYERS[::3]), T, "sltt", step_mode=step_mode)
    found = results_of(model, np.zeros((6, T, 5, 4), "float32"))
    assert all(np.isfinite(result).all() for result in found)


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_mask_on_a_tensor_counts_where_the_graph_has_none(gradient):
    """Keras leaves it out of the graph if it casts the input of the layer."""
    frames = frames_of(T)
    inputs = keras.Input((5, 4))
    layer = layers.BatchNormalization(momentum=0.5, dtype="mixed_bfloat16")
    spikes = rsnn.layers.LIF(dtype="float32")(layer(layers.Masking()(inputs)))
    model = spiking(
        keras.Model(inputs, layers.Dense(3)(layers.Flatten()(spikes))), T, gradient
    )
    loss_and_gradients(model, frames, Y)
    np.testing.assert_allclose(
        to_numpy(layer.moving_mean), 0.5 * masked_statistics(frames)[0], rtol=1e-2
    )


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_mask_may_be_an_input_of_the_network_without_time(step_mode):
    frames, mask = frames_of(T), np.random.default_rng(1).random((6, 5)) < 0.5
    inputs = [keras.Input((5, 4)), keras.Input((5,), dtype="bool")]
    layer = OnlineRenormalization(momentum=0.5)
    network = keras.Model(inputs, rsnn.layers.LIF()(layer(inputs[0], mask=inputs[1])))
    training_results(
        spiking(network, T, "sltt", step_mode=step_mode),
        [frames, mask],
        Y,
        lambda y, outputs: ops.sum(outputs),
    )
    rows = np.moveaxis(frames, 1, 2)[mask].reshape(-1, 4)
    np.testing.assert_allclose(
        to_numpy(layer.moving_mean), 0.5 * rows.mean(axis=0), rtol=1e-4
    )


@pytest.mark.parametrize("make", [layers.BatchNormalization, OnlineRenormalization])
def test_a_mask_of_another_rank_is_an_error(make):
    frames = frames_of(1)[:, 0]
    with pytest.raises(
        ValueError, match=r"one dimension less|`mask` must have one axis less"
    ):
        make()(frames, mask=frames > 0.0, training=True)

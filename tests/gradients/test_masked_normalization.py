"""Batch normalisation of masked rows: they count in no statistics, as in Keras, with
every method and in both step modes."""

import functools

import keras
import numpy as np
import pytest
from helpers import assert_close, both_step_modes, loss_and_gradients, spiking, to_numpy
from keras import layers
from masked_results import METHODS

from keras_ratesnn.gradients import Rate
from keras_ratesnn.layers import (
    LIF,
    OnlineRenormalization,
    TemporalEffectiveBatchNormalization,
    ThresholdDependentBatchNormalization,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not support masking and will therefore destroy"
)

T = 3
Y = np.arange(6) % 3
SETTINGS = {"momentum": 0.5, "epsilon": 1e-5}
LAYERS = [
    functools.partial(layers.BatchNormalization, **SETTINGS),
    functools.partial(ThresholdDependentBatchNormalization, **SETTINGS),
    functools.partial(TemporalEffectiveBatchNormalization, T, **SETTINGS),
    functools.partial(OnlineRenormalization, **SETTINGS),
]
FEW = [LAYERS[0], LAYERS[3]]


def frames_of(timesteps):
    """Frames of five rows each, `(6, T, 5, 4)`; some rows are 0, for `Masking`, and
    which may change from step to step."""
    random = np.random.default_rng(0)
    frames = random.normal(2.0, 1.0, (6, timesteps, 5, 4)).astype("float32")
    frames[random.random((6, timesteps, 5)) < 0.4] = 0.0
    return frames


def network_of(makes, decay=0.2):
    """For each layer, neurons after it, and attention to their masked spikes; the layer
    sees masked frames, and spikes."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4))
    branches = [layers.Flatten()(inputs)]
    for make in makes:
        x = LIF(decay, 0.1)(make()(layers.Masking()(inputs)))
        x = LIF(decay, 0.1)(make()(layers.Dense(4)(x)))
        branches.append(layers.Flatten()(layers.Attention()([x, x])))
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(branches)))


def results_of(model, frames):
    """The loss, the gradients and the moving averages after a batch; without the
    factors of steps, which Keras has not."""
    value, gradients = loss_and_gradients(model, frames, Y)
    gradients = [
        gradient for path, gradient in gradients.items() if "step_factors" not in path
    ]
    network = getattr(model, "network", model)
    return [value, *gradients, *map(to_numpy, network.non_trainable_variables)]


def assert_same(found, expected, rtol=1e-3, message=""):
    assert_close(found, expected, rtol=rtol, atol=0.05 * rtol, message=str(message))


RENORM = [functools.partial(layers.BatchNormalization, renorm=True, **SETTINGS)]


@both_step_modes
@pytest.mark.parametrize("makes", [LAYERS, RENORM])
def test_one_step_is_that_of_keras(makes, step_mode):
    frames = frames_of(1)
    expected = results_of(network_of(makes), frames[:, 0])
    for method in METHODS[step_mode] if makes is LAYERS else ["sltt"]:
        model = spiking(network_of(makes), 1, method, step_mode=step_mode)
        assert_same(results_of(model, frames), expected, message=method)


@pytest.mark.parametrize(
    ("gradient", "step_mode", "rtol"),
    [
        ("rate", "multi", 1e-3),
        ("rate", "single", 1e-3),
        # The authors' program adds ε twice.
        (Rate(last_step_statistics=True), "single", 1e-2),
    ],
    ids=str,
)
def test_the_rate_gradient_is_that_of_bptt_where_all_steps_are_alike(
    gradient, step_mode, rtol
):
    """Neurons without memory, on the same frame at each step."""
    frames = np.repeat(frames_of(T)[:, :1], T, axis=1)
    found, expected = (
        results_of(
            spiking(network_of(FEW, 0.0), T, method, step_mode=step_mode), frames
        )
        for method in (gradient, "bptt")
    )
    assert_same(found, expected, rtol)


def statistics_of(frames):
    rows = frames[frames.any(axis=-1)]
    return rows.mean(axis=0), rows.var(axis=0)


@both_step_modes
def test_moving_averages_follow_the_rows_that_are_not_masked(step_mode):
    """Of all steps at once, or of each step in turn; those of online renormalisation
    always of all steps."""
    frames = frames_of(T)
    inputs = keras.Input((5, 4))
    by_batch, online = (make() for make in FEW)
    masked = layers.Masking()(inputs)
    outputs = LIF()(layers.Add()([by_batch(masked), online(masked)]))
    model = spiking(keras.Model(inputs, outputs), T, "sltt", step_mode=step_mode)
    model(frames, training=True)
    mean, variance = np.zeros(4), np.ones(4)
    parts = [frames] if step_mode == "multi" else np.split(frames, T, axis=1)
    for part in parts:
        of_part = statistics_of(part)
        mean, variance = 0.5 * (mean + of_part[0]), 0.5 * (variance + of_part[1])
    assert_same([by_batch.moving_mean, by_batch.moving_variance], [mean, variance])
    mean, variance = statistics_of(frames)
    found = [online.moving_mean, online.moving_variance]
    assert_same(found, [0.5 * mean, 0.5 + 0.5 * variance])


def test_online_renormalisation_by_itself_leaves_masked_rows_out():
    frames = frames_of(1)[:, 0]
    layer = OnlineRenormalization(momentum=0.0)
    for _ in range(2):
        outputs = layer(frames, training=True, mask=frames.any(axis=-1))
    mean, variance = statistics_of(frames)
    assert_same([layer.moving_mean, layer.moving_variance], [mean, variance])
    assert_same([outputs], [(frames - mean) / np.sqrt(variance + layer.epsilon)])


@both_step_modes
def test_a_batch_that_is_all_masked_has_finite_results(step_mode):
    model = spiking(network_of(FEW), T, "sltt", step_mode=step_mode)
    found = results_of(model, np.zeros((6, T, 5, 4), "float32"))
    assert all(np.isfinite(result).all() for result in found)


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_mask_on_a_tensor_counts_where_the_graph_has_none(gradient):
    """Keras leaves it out of the graph if it casts the input of the layer."""
    frames, inputs = frames_of(T), keras.Input((5, 4))
    layer = layers.BatchNormalization(momentum=0.5, dtype="mixed_bfloat16")
    spikes = LIF(dtype="float32")(layer(layers.Masking()(inputs)))
    model = spiking(keras.Model(inputs, spikes), T, gradient)
    model(frames, training=True)
    mean, _ = statistics_of(frames)
    assert_same([layer.moving_mean], [0.5 * mean], 1e-2)


def test_a_mask_of_another_rank_is_an_error():
    frames = frames_of(1)[:, 0]
    with pytest.raises(ValueError, match="`mask` must have one axis less"):
        OnlineRenormalization()(frames, mask=frames > 0.0, training=True)

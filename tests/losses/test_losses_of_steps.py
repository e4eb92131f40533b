"""Losses and metrics on the outputs of every step, against a few lines of NumPy, and in
training."""

import keras
import numpy as np
import pytest
from helpers import (
    CROSSENTROPY,
    compiled,
    data,
    mlp,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import ops
from numpy.testing import assert_allclose

from keras_ratesnn.losses import TET, SelfDistillation, TemporalDistillation
from keras_ratesnn.metrics import AnytimeAccuracy

T = 4
RANDOM = np.random.default_rng(0)
OUTPUTS = RANDOM.normal(size=(6, T, 3)).astype("float32")
LABELS = RANDOM.integers(0, 3, 6)
WEIGHTS = RANDOM.uniform(0.5, 2.0, 6).astype("float32")


def naive_tet(outputs, labels):
    """The loss of each sample, half of which is a pull towards 0.7, in float64."""
    outputs = outputs.astype("float64")
    logs = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    right = np.take_along_axis(logs, labels[:, None, None], -1)[:, :, 0]
    pulls = ((outputs - 0.7) ** 2).mean((1, 2))
    return 0.5 * (pulls - right.mean(1))


def assert_is(loss, expected, y, outputs, weights=None):
    assert_allclose(to_numpy(loss(y, outputs, weights)), expected, rtol=1e-5)


def test_tet_is_a_mean_of_losses_and_a_pull_towards_the_target():
    expected = naive_tet(OUTPUTS, LABELS)
    arguments = CROSSENTROPY, 0.5, 0.7
    for labels in (LABELS, LABELS[:, None]):
        assert_is(TET(*arguments), expected.mean(), labels, OUTPUTS)
    weighted = (WEIGHTS * expected).mean()
    assert_is(TET(*arguments), weighted, LABELS, OUTPUTS, WEIGHTS)
    assert_is(TET(*arguments, "sum"), expected.sum(), LABELS, OUTPUTS)
    assert_is(TET(*arguments, None), expected, LABELS, OUTPUTS)
    # Labels that the loss of a step ignores count in neither term.
    ignoring = keras.losses.SparseCategoricalCrossentropy(True, ignore_class=1)
    counted = expected[LABELS != 1].mean()
    assert_is(TET(ignoring, 0.5, 0.7), counted, LABELS, OUTPUTS)


def test_masked_steps_count_in_no_mean():
    steps = ("1100", "1111", "0101", "0000", "1000", "1110")
    counts = np.array([list(row) for row in steps]) == "1"
    padded = np.where(counts[..., None], OUTPUTS, 0.0).astype("float32")
    expected = []
    for output, label, row in zip(OUTPUTS, LABELS, counts, strict=True):
        # A sample without any step counts in nothing.
        if row.any():
            alone = naive_tet(output[None, row], np.array([label]))
            expected.append(alone.item())
    masked = keras.layers.Masking()(padded)
    assert_is(TET(CROSSENTROPY, 0.5, 0.7), np.mean(expected), LABELS, masked)
    wanted = LABELS[counts.any(axis=1)] != 1
    ignoring = keras.losses.SparseCategoricalCrossentropy(True, ignore_class=1)
    counted = np.array(expected)[wanted].mean()
    assert_is(TET(ignoring, 0.5, 0.7), counted, LABELS, masked)


def test_a_loss_with_several_values_per_sample_keeps_them():
    """Labels for each pixel: one loss per pixel, with different weights."""
    outputs = RANDOM.normal(size=(2, T, 5, 3)).astype("float32")
    targets = RANDOM.normal(size=(2, 5, 3)).astype("float32")
    weights = RANDOM.uniform(size=(2, 5)).astype("float32")
    expected = ((outputs - targets[:, None]) ** 2).mean((1, 3))
    expected += ((outputs - 1.0) ** 2).mean((1, 3))
    wanted = (weights * expected / 2).mean()
    assert_is(TET("mean_squared_error", 0.5), wanted, targets, outputs, weights)


def test_one_output_may_have_labels_with_or_without_its_axis():
    outputs = RANDOM.uniform(0.1, 0.9, (6, T, 1)).astype("float32")
    labels = RANDOM.integers(0, 2, (6, 1)).astype("float32")
    right = np.where(labels[:, None] == 1, outputs, 1 - outputs)
    for y in (labels, labels[:, 0]):
        loss = TET("binary_crossentropy", 0.0)
        assert_is(loss, -np.log(right).mean(), y, outputs)


@pytest.mark.parametrize(
    "loss",
    [CROSSENTROPY, keras.losses.sparse_categorical_crossentropy],
    ids=type,
)
def test_a_loss_is_the_same_after_saving(loss):
    tet = TET(loss, 0.3, 0.5, "sum", name="mine")
    config = keras.saving.serialize_keras_object(tet)
    copy = keras.saving.deserialize_keras_object(config)
    assert (copy.reduction, copy.name) == ("sum", "mine")
    probabilities = to_numpy(ops.softmax(OUTPUTS))
    assert_is(copy, to_numpy(tet(LABELS, probabilities)), LABELS, probabilities)


def mean_over_units(y_true, y_pred):
    return ops.mean(y_pred, axis=(1, 2))


@pytest.mark.parametrize(
    ("use", "error", "said"),
    [
        (lambda: TET(3), TypeError, "`loss` must be a keras.losses.Loss, a function"),
        (
            lambda: TET("crossentropie"),
            ValueError,
            "`loss` must be a name.*Received: loss='crossentropie'",
        ),
        (
            lambda: TET(keras.losses.MeanSquaredError(reduction="sum")),
            ValueError,
            "`loss` must have the same reduction as TET.*Pass `reduction` to TET",
        ),
        (
            lambda: TET(CROSSENTROPY)(LABELS, OUTPUTS[:, 0]),
            ValueError,
            r"`y_pred` must be the outputs of every step.*\(6, 3\).*return_sequences",
        ),
        (
            lambda: TET(mean_over_units)(
                LABELS, keras.layers.Masking()(np.ones((6, T, 5, 3)))
            ),
            ValueError,
            r"mask of shape \(batch, T, ...\) with 3 axes, and losses of a step with 1",
        ),
        (
            lambda: AnytimeAccuracy(T + 1).update_state(LABELS, OUTPUTS),
            ValueError,
            "`y_pred` must be the outputs of each of timesteps=5",
        ),
        (
            lambda: SelfDistillation()(np.array([0]), np.zeros((1, 3))),
            ValueError,
            "`y_pred` must be the logits of all heads.*add_branches",
        ),
        (
            lambda: TemporalDistillation()(np.array([0]), np.zeros((1, 3))),
            ValueError,
            "`y_pred` must be the logits of every step.*return_sequences=True",
        ),
        (
            lambda: TemporalDistillation()(np.zeros((1, 2)), np.zeros((1, 2, 3))),
            ValueError,
            r"`y_true` must be integer labels.*\(1, 2\).*leave out an axis of steps",
        ),
    ],
)
def test_what_a_loss_or_a_metric_cannot_use_is_refused(use, error, said):
    with pytest.raises(error, match=said):
        use()


@pytest.mark.parametrize(
    ("loss", "y", "said"),
    [
        (
            CROSSENTROPY,
            np.eye(3)[np.arange(10) % 3],
            "one-hot rows.*CategoricalCrossentropy",
        ),
        (
            CROSSENTROPY,
            np.zeros((10, T)),
            r"`y` must have labels of samples.*of shape \(batch\).*y of shape "
            r"\((10|None), 4\)",
        ),
        (
            "mse",
            np.zeros((10, T, 3)),
            r"of shape \(batch, 3\) for its loss mean_squared_error.*Leave out an axis "
            r"of steps",
        ),
    ],
)
def test_labels_that_the_loss_of_a_step_cannot_use_are_an_error_that_says_so(
    loss, y, said
):
    model = compiled(spiking(timesteps=T, return_sequences=True), loss=TET(loss))
    with pytest.raises(ValueError, match=said):
        model.train_on_batch(data()[0], y)


def accuracies(metric):
    results = to_numpy(metric.result())
    return [results[f"{metric.name}_t{t + 1}"] for t in range(T)]


def is_largest(mean):
    return mean.argmax(-1) == LABELS


IS_ONE = LABELS == 1
BITS = OUTPUTS[:, 0] > 0.2
AS_BITS = {"labels": "binary", "threshold": 0.0, "name": "bits"}


@pytest.mark.parametrize(
    ("outputs", "labels", "is_right", "arguments"),
    [
        (OUTPUTS, LABELS[:, None], is_largest, {}),
        (OUTPUTS, np.eye(3)[LABELS], is_largest, {}),
        (OUTPUTS[:, :, :1], IS_ONE, lambda mean: (mean[:, 0] > 0.5) == IS_ONE, {}),
        (OUTPUTS, BITS, lambda mean: ((mean > 0) == BITS).mean(-1), AS_BITS),
    ],
)
def test_accuracy_after_each_step_is_that_of_the_mean_so_far(
    outputs, labels, is_right, arguments
):
    metric = AnytimeAccuracy(T, **arguments)
    for part in (slice(0, 4), slice(4, 6)):
        metric.update_state(labels[part], outputs[part])
    right = [is_right(outputs[:, : t + 1].mean(1)) for t in range(T)]
    assert_allclose(accuracies(metric), np.mean(right, axis=1), rtol=1e-6)
    metric.reset_state()
    metric.update_state(labels, outputs, WEIGHTS)
    expected = np.average(right, axis=1, weights=WEIGHTS)
    assert_allclose(accuracies(metric), expected, rtol=1e-6)


@pytest.mark.parametrize("weights", [WEIGHTS[:3, None], WEIGHTS.reshape(3, 2)])
def test_weights_of_samples_in_a_column_and_of_labels_go_with_a_mask_of_steps(weights):
    outputs = RANDOM.normal(size=(3, T, 2, 3)).astype("float32")
    labels = RANDOM.integers(0, 3, (3, 2))
    counts = np.arange(T) >= np.array([[0], [3], [1]])
    masked = ops.convert_to_tensor(outputs)
    masked._keras_mask = ops.convert_to_tensor(counts)
    metric = AnytimeAccuracy(T)
    metric.update_state(labels, masked, weights)
    sums = np.cumsum(outputs * counts[..., None, None], axis=1)
    right = sums.argmax(-1) == labels[:, None]
    # The masked steps are all at the beginning.
    seen = counts[..., None] * np.broadcast_to(weights[:, None], (3, 1, 2))
    expected = np.average(right, axis=(0, 2), weights=seen)
    assert_allclose(accuracies(metric), expected, rtol=1e-5)


def test_a_model_trains_with_both_and_shows_the_accuracy_of_each_step():
    keras.config.set_dtype_policy("mixed_bfloat16")
    x, _ = data(8)
    y = (x[:, 0] > 0.5).astype("int32")
    model = spiking(mlp(), T, step_mode="single", return_sequences=True)
    optimizer, metrics = keras.optimizers.Adam(0.02), [AnytimeAccuracy(T)]
    compiled(model, optimizer, TET(CROSSENTROPY), metrics=metrics)
    history = model.fit(x, y, epochs=8, validation_data=(x, y), verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    outputs = model.predict(x, verbose=0).astype("float32")
    for t in range(1, T + 1):
        expected = np.mean(outputs[:, :t].mean(1).argmax(-1) == y)
        found = history[f"val_accuracy_t{t}"][-1]
        assert_allclose(found, expected, atol=1e-6)
    loaded = saved_and_loaded(model)
    assert loaded.loss.get_config() == model.loss.get_config()
    assert loaded.get_compile_config() == model.get_compile_config()

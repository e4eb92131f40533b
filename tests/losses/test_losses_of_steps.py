"""Losses and metrics on the outputs of every step, against a few lines of NumPy, and in
training."""

import keras
import numpy as np
import pytest
from helpers import (
    compiled,
    data,
    gradient_of,
    mlp,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import ops

from keras_ratesnn.losses import TET
from keras_ratesnn.metrics import AnytimeAccuracy

T = 4
RANDOM = np.random.default_rng(0)
OUTPUTS = RANDOM.normal(size=(6, T, 3)).astype("float32")
LABELS = RANDOM.integers(0, 3, 6)
WEIGHTS = RANDOM.uniform(0.5, 2.0, 6).astype("float32")
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def naive_crossentropy(outputs, labels):
    """The loss of each sample and step, in float64."""
    outputs = outputs.astype("float64")
    logs = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, labels[:, None, None], -1)[:, :, 0]


def naive_tet(outputs, labels, weight, target):
    """Of each sample."""
    pulls = ((outputs - target) ** 2).mean((1, 2))
    return (1 - weight) * naive_crossentropy(outputs, labels).mean(1) + weight * pulls


def assert_is(loss, expected, y, outputs, weights=None):
    np.testing.assert_allclose(to_numpy(loss(y, outputs, weights)), expected, rtol=1e-5)


def test_tet_is_a_mean_of_losses_and_a_pull_towards_the_target():
    expected = naive_tet(OUTPUTS, LABELS, 0.5, 0.7)
    tet, arguments = TET(CROSSENTROPY, 0.5, 0.7), (CROSSENTROPY, 0.5, 0.7)
    assert_is(tet, expected.mean(), LABELS, OUTPUTS)
    assert_is(tet, expected.mean(), LABELS[:, None], OUTPUTS)
    assert_is(tet, (WEIGHTS * expected).mean(), LABELS, OUTPUTS, WEIGHTS)
    assert_is(TET(*arguments, "sum"), expected.sum(), LABELS, OUTPUTS)
    assert_is(TET(*arguments, None), expected, LABELS, OUTPUTS)


def test_labels_that_the_loss_of_a_step_ignores_count_in_neither_term():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1)
    expected = naive_tet(OUTPUTS, LABELS, 0.5, 1.0)[LABELS != 1].mean()
    assert_is(TET(loss, 0.5), expected, LABELS, OUTPUTS)


def test_a_loss_with_several_values_per_sample_keeps_them():
    """Labels for each pixel: one loss per pixel, with different weights."""
    outputs = RANDOM.normal(size=(2, T, 5, 3)).astype("float32")
    targets = RANDOM.normal(size=(2, 5, 3)).astype("float32")
    weights = RANDOM.uniform(size=(2, 5)).astype("float32")
    expected = ((outputs - targets[:, None]) ** 2).mean((1, 3))
    expected += ((outputs - 1.0) ** 2).mean((1, 3))
    wanted = (weights * expected / 2).mean()
    assert_is(TET("mean_squared_error", 0.5), wanted, targets, outputs, weights)


@pytest.mark.parametrize(
    "loss",
    ["binary_crossentropy", keras.losses.BinaryCrossentropy()],
    ids=["name", "object"],
)
def test_one_output_may_have_labels_with_or_without_its_axis(loss):
    outputs = RANDOM.uniform(0.1, 0.9, (6, T, 1)).astype("float32")
    labels = RANDOM.integers(0, 2, (6, 1)).astype("float32")
    right = np.where(labels[:, None] == 1, outputs, 1 - outputs)
    for y in (labels, labels[:, 0]):
        assert_is(TET(loss, 0.0), -np.log(right).mean(), y, outputs)


def test_a_loss_that_mixes_samples_does_not_mix_steps():
    targets = RANDOM.integers(0, 2, (6, 3)).astype("float32")
    outputs = RANDOM.uniform(size=(6, T, 3)).astype("float32")
    dice = keras.losses.Dice()
    expected = np.mean([to_numpy(dice(targets, outputs[:, t])) for t in range(T)])
    assert_is(TET(dice, 0.0), expected, targets, outputs)
    pulled = 0.5 * expected + 0.5 * ((outputs - 1.0) ** 2).mean()
    assert_is(TET(dice, 0.5), pulled, targets, outputs)


@pytest.mark.parametrize(
    "loss",
    [
        CROSSENTROPY,
        "sparse_categorical_crossentropy",
        keras.losses.sparse_categorical_crossentropy,
    ],
    ids=["object", "name", "function"],
)
def test_a_loss_is_the_same_after_saving(loss):
    tet = TET(loss, 0.3, 0.5, "sum", name="mine")
    config = keras.saving.serialize_keras_object(tet)
    again = keras.saving.deserialize_keras_object(config)
    arguments = again.weight, again.target, again.reduction, again.name
    assert arguments == (0.3, 0.5, "sum", "mine")
    outputs = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(-1, keepdims=True)
    values = to_numpy(again(LABELS, outputs)), to_numpy(tet(LABELS, outputs))
    np.testing.assert_array_equal(*values)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None,), TypeError, "`loss` must be a keras.losses.Loss"),
        (
            ("crossentropie",),
            ValueError,
            "`loss` must be a name.*Received: loss='crossentropie'",
        ),
        (
            (keras.losses.MeanSquaredError(reduction="sum"),),
            ValueError,
            "`loss` must have the same reduction as TET.*Pass `reduction` to TET",
        ),
        (
            ("mse", 1.5),
            ValueError,
            "`weight` must be >= 0 and <= 1. Received: weight=1.5",
        ),
        (("mse", -0.5), ValueError, "`weight` must be >= 0 and <= 1"),
        (("mse", 0.5, "one"), TypeError, "`target` must be a real number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_losses_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        TET(*arguments)


def test_outputs_without_a_time_axis_are_refused():
    with pytest.raises(
        ValueError,
        match=r"`y_pred` must be the outputs of every step.*\(6, "
        r"3\).*return_sequences=True",
    ):
        TET(CROSSENTROPY)(LABELS, OUTPUTS[:, 0])
    model = compiled(spiking(timesteps=T), loss=TET(CROSSENTROPY))
    with pytest.raises(ValueError, match="return_sequences=True"):
        model.fit(*data(), verbose=0)


@pytest.mark.parametrize(
    ("loss", "y", "message"),
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
            CROSSENTROPY,
            np.full(10, 3),
            "`y` must be labels from 0 to 2.*Received: 3, the label of sample 0",
        ),
        (
            keras.losses.CategoricalCrossentropy(from_logits=True),
            np.zeros(10, int),
            "SparseCategoricalCrossentropy",
        ),
        (
            "mse",
            np.zeros((10, T, 3)),
            r"of shape \(batch, 3\) for its loss mean_squared_error.*Leave out an axis "
            r"of steps",
        ),
    ],
    ids=["one-hot", "of steps", "no class", "not one-hot", "numbers of steps"],
)
def test_labels_that_the_loss_of_a_step_cannot_use_are_an_error_that_says_so(
    loss, y, message
):
    model = compiled(spiking(timesteps=T, return_sequences=True), loss=TET(loss))
    for use in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            use(data()[0], y, verbose=0)


def test_masked_steps_count_in_no_mean():
    steps = ("1100", "1111", "0101", "0000", "1000", "1110")
    counts = np.array([[step == "1" for step in row] for row in steps])
    padded = np.where(counts[..., None], OUTPUTS, 0.0).astype("float32")
    expected = []
    for output, label, row in zip(OUTPUTS, LABELS, counts, strict=True):
        # A sample without any step counts in nothing.
        if row.any():
            alone = naive_tet(output[None, row], np.array([label]), 0.5, 0.7)
            expected.append(alone.item())
    masked = keras.layers.Masking()(padded)
    assert_is(TET(CROSSENTROPY, 0.5, 0.7), np.mean(expected), LABELS, masked)


def test_a_mask_of_more_than_the_losses_is_refused():
    keras_mask = keras.layers.Masking()(np.ones((6, T, 5, 3)))
    with pytest.raises(
        ValueError,
        match=r"mask of shape \(batch, T, ...\) with 3 axes, and losses of a step "
        r"with 1",
    ):
        TET(lambda y_true, y_pred: ops.mean(y_pred, axis=(1, 2)))(LABELS, keras_mask)


def test_the_derivative_of_tet_is_that_of_its_formula():
    loss = TET(CROSSENTROPY, 0.5)
    (gradient,) = gradient_of(lambda outputs: loss(LABELS, outputs), [OUTPUTS])
    softmax = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(-1, keepdims=True)
    expected = (softmax - np.eye(3)[LABELS][:, None]) / (6 * T)
    expected += 2 * (OUTPUTS - 1.0) / OUTPUTS.size
    np.testing.assert_allclose(gradient, 0.5 * expected, rtol=1e-4, atol=1e-7)


# Accuracy.
CASES = {
    "sparse": (OUTPUTS, LABELS, lambda mean: mean.argmax(-1) == LABELS),
    "column": (OUTPUTS, LABELS[:, None], lambda mean: mean.argmax(-1) == LABELS),
    "categorical": (OUTPUTS, np.eye(3)[LABELS], lambda mean: mean.argmax(-1) == LABELS),
    "binary": (
        OUTPUTS[:, :, :1],
        LABELS % 2,
        lambda mean: (mean[:, 0] > 0.5) == LABELS % 2,
    ),
}


def accuracies(metric):
    return [
        float(to_numpy(metric.result()[f"{metric.name}_t{t}"]))
        for t in range(1, metric.timesteps + 1)
    ]


@pytest.mark.parametrize("kind", CASES)
def test_accuracy_after_each_step_is_that_of_the_mean_so_far(kind):
    outputs, labels, is_right = CASES[kind]
    metric = AnytimeAccuracy(T)
    for part in (slice(0, 4), slice(4, 6)):
        metric.update_state(labels[part], outputs[part])
    right = [is_right(outputs[:, : t + 1].mean(1)) for t in range(T)]
    np.testing.assert_allclose(accuracies(metric), np.mean(right, axis=1), rtol=1e-6)
    metric.reset_state()
    metric.update_state(labels, outputs, WEIGHTS)
    expected = np.average(right, axis=1, weights=WEIGHTS)
    np.testing.assert_allclose(accuracies(metric), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "weights", [WEIGHTS[:3, None], WEIGHTS.reshape(3, 2)], ids=["column", "labels"]
)
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
    begun = (np.cumsum(counts, axis=1) > 0)[..., None]
    seen = begun * np.broadcast_to(weights[:, None], (3, 1, 2))
    expected = np.average(right, axis=(0, 2), weights=seen)
    np.testing.assert_allclose(accuracies(metric), expected, rtol=1e-5)


def test_several_binary_labels_can_be_declared():
    labels = RANDOM.integers(0, 2, (6, 3))
    metric = AnytimeAccuracy(T, labels="binary", threshold=0.0, name="bits")
    metric.update_state(labels, OUTPUTS)
    right = [(OUTPUTS[:, : t + 1].mean(1) > 0) == labels for t in range(T)]
    expected = np.mean(right, axis=(1, 2))
    np.testing.assert_allclose(accuracies(metric), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "`timesteps` must be 1 or more"),
        ((T, "dense"), "`labels` must be one of 'auto', 'sparse'"),
    ],
    ids=["timesteps", "labels"],
)
def test_wrong_arguments_of_the_accuracy_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AnytimeAccuracy(*arguments)


@pytest.mark.parametrize("return_sequences", [False, True])
def test_outputs_with_a_wrong_number_of_steps_are_refused(return_sequences):
    model = spiking(timesteps=T, return_sequences=return_sequences)
    compiled(
        model,
        loss="mse" if not return_sequences else TET(CROSSENTROPY),
        metrics=[AnytimeAccuracy(T + 1)],
    )
    x, y = data()
    with pytest.raises(
        ValueError, match="`y_pred` must be the outputs of each of timesteps=5"
    ):
        model.fit(x, y if return_sequences else np.zeros((10, 3)), verbose=0)


# In training.
@pytest.mark.parametrize(
    ("gradient", "policy"), [("rate", "mixed_bfloat16"), ("bptt", "mixed_float16")]
)
def test_a_model_trains_with_both_and_shows_the_accuracy_of_each_step(gradient, policy):
    keras.config.set_dtype_policy(policy)
    x, _ = data(24)
    y = (x[:, 0] > 0.5).astype("int32")
    network, settings = mlp(width=16), {"step_mode": "single", "return_sequences": True}
    model = spiking(network, T, gradient, **settings)
    optimizer, metrics = keras.optimizers.Adam(0.02), [AnytimeAccuracy(T)]
    compiled(model, optimizer, TET(CROSSENTROPY), metrics=metrics)
    options = {"batch_size": 8, "verbose": 0}
    history = model.fit(x, y, epochs=8, validation_data=(x, y), **options).history
    assert history["loss"][-1] < history["loss"][0]
    logs = model.evaluate(x, y, return_dict=True, **options)
    outputs = model.predict(x, verbose=0).astype("float32")
    for t in range(1, T + 1):
        expected = np.mean(outputs[:, :t].mean(1).argmax(-1) == y)
        name = f"accuracy_t{t}"
        values = logs[name], history[f"val_{name}"][-1]
        np.testing.assert_allclose(values, expected, atol=1e-6)
    again = saved_and_loaded(model)
    assert again.loss.get_config() == model.loss.get_config()
    assert again.get_compile_config() == model.get_compile_config()

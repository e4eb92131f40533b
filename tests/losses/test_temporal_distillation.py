"""TemporalDistillation: the outputs of all steps learn from the labels, and from the
steps that are right."""

import keras
import numpy as np
import pytest
from helpers import data, gradient_of, mlp, spiking, to_numpy
from keras import ops
from naive_distillation import naive_loss, softmax

from keras_ratesnn.losses import SelfDistillation, TemporalDistillation


def made(samples=12, steps=3, classes=4):
    generator = np.random.default_rng(0)
    return generator.integers(0, classes, samples), generator.normal(
        0, 2, (samples, steps, classes)
    ).astype("float32")


@pytest.mark.parametrize("arguments", [(0.5, 3.0), (0.0, 4.0)])
def test_the_loss_is_that_of_a_loop(arguments):
    labels, steps = made()
    no_step_right = (steps.argmax(-1) != labels[:, None]).all(1)
    assert 0 < no_step_right.sum() < len(labels)
    loss = TemporalDistillation(*arguments, reduction=None)
    config = keras.saving.serialize_keras_object(loss)
    copy = keras.saving.deserialize_keras_object(config)
    wanted = naive_loss(labels, steps, 1.0, *arguments) / steps.shape[1]
    for one, targets in (
        (loss, labels),
        (loss, labels[:, None]),
        (loss, np.eye(4)[labels]),
        (copy, labels),
    ):
        np.testing.assert_allclose(to_numpy(one(targets, steps)), wanted, rtol=1e-5)


def test_a_sample_that_no_step_classifies_correctly_learns_from_its_label_alone():
    steps = np.array([[[0.0, 3.0], [0.0, 1.0]]], "float32")
    (gradient,) = gradient_of(
        lambda steps: TemporalDistillation(beta=5.0)(np.array([0]), steps), [steps]
    )
    np.testing.assert_allclose(
        gradient[0], [(softmax(step) - [1, 0]) / 2 for step in steps[0]], rtol=1e-5
    )


def test_masked_steps_of_any_content_count_neither_in_the_loss_nor_in_the_teacher():
    labels, steps = made(steps=4)
    lengths = np.array([4, 3, 2, 1] * 3)
    mask = np.arange(4) < lengths[:, None]
    padded = np.where(mask[..., None], steps, np.nan).astype("float32")
    masked = ops.convert_to_tensor(padded)
    masked._keras_mask = ops.convert_to_tensor(mask)
    loss = TemporalDistillation(reduction="sum")(labels, masked)
    wanted = 0.0
    for label, sample, length in zip(labels, steps, lengths, strict=True):
        (alone,) = naive_loss([label], sample[None, :length], 1.0, 0.5, 3.0)
        wanted += alone / length
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_training_makes_the_loss_smaller():
    model = spiking(mlp(), return_sequences=True)
    model.compile(keras.optimizers.Adam(0.05), TemporalDistillation())
    losses = model.fit(*data(20), epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]


def test_arguments_and_shapes_are_checked():
    with pytest.raises(ValueError, match="`temperature` must be > 0"):
        TemporalDistillation(temperature=0)
    with pytest.raises(TypeError, match="`beta` must be a real number"):
        TemporalDistillation(beta=None)
    with pytest.raises(
        ValueError,
        match=r"`y_pred` must be the logits of every step.*return_sequences=True",
    ):
        TemporalDistillation()(np.array([0]), np.zeros((1, 3)))
    with pytest.raises(
        ValueError,
        match=r"`y_true` must be integer labels.*shape \(1, 2\).*leave out an axis of "
        r"steps",
    ):
        TemporalDistillation()(np.zeros((1, 2)), np.zeros((1, 2, 3)))


@pytest.mark.parametrize(
    "loss", [TemporalDistillation(), SelfDistillation()], ids=["steps", "heads"]
)
def test_a_label_that_is_of_no_class_is_an_error_in_an_array_and_nan_in_a_tensor(loss):
    of_no_class = (4, -1, 0.5, np.nan)
    labels, steps = made()
    labels = np.concatenate([labels[4:], of_no_class]).astype("float32")
    tensors = ops.convert_to_tensor(labels), ops.convert_to_tensor(steps)
    of_samples = to_numpy(loss.call(*tensors))
    assert np.isnan(of_samples).tolist() == [False] * 8 + [True] * 4
    model = spiking(mlp(), return_sequences=True)
    model.compile("sgd", loss)
    x, _ = data()
    for wrong in of_no_class:
        said = "`{}` must be labels from 0 to {}.*Received: {}, the label of sample {}"
        with pytest.raises(ValueError, match=said.format("y_true", 3, wrong, 1)):
            loss(np.array([[0], [wrong], [3]]), steps[:3])
        y = np.array([*[0] * 9, wrong])
        for use in (model.fit, model.evaluate, model.train_on_batch):
            with pytest.raises(ValueError, match=said.format("y", 2, wrong, 9)):
                use(x, y)

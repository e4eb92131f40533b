"""TemporalDistillation and SelfDistillation: the outputs of all steps, or of all heads,
learn from the labels, and from those of them that are right."""

import keras
import numpy as np
import pytest
from helpers import data, gradient_of, mlp, spiking, to_numpy
from keras import ops
from numpy.testing import assert_allclose

from keras_ratesnn.losses import SelfDistillation, TemporalDistillation

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 4, 12)
LOGITS = RANDOM.normal(0, 2, (12, 4, 4)).astype("float32")


def softmax(logits):
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def naive_losses(labels, logits, alpha, beta, temperature):
    """The loss of each sample, by loops in float64."""
    losses = []
    for label, members in zip(labels, np.asarray(logits, "float64"), strict=True):
        right = [member for member in members if member.argmax() == label]
        loss = sum(-alpha * np.log(softmax(member)[label]) for member in members)
        if right:
            teacher = softmax(np.mean(right, axis=0) / temperature)
            for member in members:
                student = softmax(member / temperature)
                divergence = np.sum(teacher * np.log(teacher / student))
                loss += beta * temperature**2 * divergence
        losses.append(loss)
    return np.array(losses)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (SelfDistillation, (1.0, 0.3, 3.0)),
        (SelfDistillation, (0.0, 1.0, 4.0)),
        (TemporalDistillation, (0.5, 3.0)),
    ],
)
def test_the_loss_is_that_of_a_loop(kind, arguments):
    logits = LOGITS[:, :3]
    no_member_right = (logits.argmax(-1) != LABELS[:, None]).all(1)
    assert 0 < no_member_right.sum() < len(LABELS)
    loss = kind(*arguments, reduction=None)
    if kind is TemporalDistillation:
        wanted = naive_losses(LABELS, logits, 1.0, *arguments) / 3
    else:
        wanted = naive_losses(LABELS, logits, *arguments)
    config = keras.saving.serialize_keras_object(loss)
    copy = keras.saving.deserialize_keras_object(config)
    for targets in (LABELS, LABELS[:, None], np.eye(4)[LABELS]):
        for one in (loss, copy):
            values = to_numpy(one(targets, logits))
            assert_allclose(values, wanted, rtol=1e-5)


def test_the_teacher_has_no_gradient_and_who_has_none_learns_from_the_label_alone():
    heads = np.array([[[2.0, 0.0], [0.5, 0.0]]], "float32")
    label = np.array([0])
    without_labels = SelfDistillation(alpha=0.0, beta=1.0, temperature=1.0)
    (gradient,) = gradient_of(lambda heads: without_labels(label, heads), [heads])
    teacher = softmax(heads[0].mean(0))
    wanted = [softmax(head) - teacher for head in heads[0]]
    assert_allclose(gradient[0], wanted, rtol=1e-4, atol=1e-6)
    wrong = np.array([[[0.0, 3.0], [0.0, 1.0]]], "float32")
    loss = TemporalDistillation(beta=5.0)
    (gradient,) = gradient_of(lambda steps: loss(label, steps), [wrong])
    wanted = [(softmax(step) - [1, 0]) / 2 for step in wrong[0]]
    assert_allclose(gradient[0], wanted, rtol=1e-5)


def test_masked_steps_of_any_content_count_neither_in_the_loss_nor_in_the_teacher():
    lengths = np.array([4, 3, 2, 1] * 3)
    mask = np.arange(4) < lengths[:, None]
    masked = ops.convert_to_tensor(np.where(mask[..., None], LOGITS, np.nan))
    masked._keras_mask = ops.convert_to_tensor(mask)
    loss = TemporalDistillation(reduction="sum")(LABELS, masked)
    wanted = 0.0
    for label, sample, length in zip(LABELS, LOGITS, lengths, strict=True):
        (alone,) = naive_losses([label], sample[None, :length], 1.0, 0.5, 3.0)
        wanted += alone / length
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("loss", [TemporalDistillation(), SelfDistillation()], ids=type)
def test_a_label_that_is_of_no_class_is_an_error_in_an_array_and_nan_in_a_tensor(loss):
    labels_of_no_class = (4, -1, 0.5, np.nan)
    labels = np.concatenate([LABELS[4:], labels_of_no_class]).astype("float32")
    tensors = ops.convert_to_tensor(labels), ops.convert_to_tensor(LOGITS)
    losses = to_numpy(loss.call(*tensors))
    assert np.isnan(losses).tolist() == [False] * 8 + [True] * 4
    model = spiking(mlp(), return_sequences=True)
    model.compile("sgd", loss)
    x, _ = data()
    said = "`{}` must be labels from 0 to {}.*Received: {}, the label of sample {}"
    for wrong in labels_of_no_class:
        with pytest.raises(ValueError, match=said.format("y_true", 3, wrong, 1)):
            loss(np.array([[0], [wrong], [3]]), LOGITS[:3])
        with pytest.raises(ValueError, match=said.format("y", 2, wrong, 9)):
            model.train_on_batch(x, np.array([*[0] * 9, wrong]))

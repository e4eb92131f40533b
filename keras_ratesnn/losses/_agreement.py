r"""Logits that learn from the labels, and from the mean of those of them that are
right.

    z = mean of those of the logits o_1 … o_H whose largest entry is the label,
            without gradient
    α CE(o_h, y) + β τ² KL(softmax(z / τ) ‖ softmax(o_h / τ)),
            the second term only where one is right
"""

from keras import ops

from keras_ratesnn._core.annotations import Tensor


def label_and_agreement_losses(
    probabilities: Tensor,
    logits: Tensor,
    alpha: float,
    beta: float,
    temperature: float,
    counts: Tensor | None = None,
) -> Tensor:
    """The loss of each of several logits for the same sample, `(batch, number)`.

    Args:
        probabilities: Tensor `(batch, classes)`, those of the labels.
        logits: Tensor `(batch, number, classes)`.
        alpha: Float, the weight of the labels.
        beta: Float, the weight of the mean of those that are right.
        temperature: Float > 0.
        counts: Tensor `(batch, number)`, 0 for logits that count in no mean, else 1.
            Defaults to `None`, all ones.
    """
    cross_entropy = -ops.sum(probabilities[:, None] * ops.log_softmax(logits), axis=-1)
    labels = ops.argmax(probabilities, axis=-1)[:, None]
    right = ops.cast(ops.argmax(logits, axis=-1) == labels, logits.dtype)
    right = right if counts is None else right * counts
    count = ops.sum(right, axis=1, keepdims=True)
    total = ops.sum(right[..., None] * ops.stop_gradient(logits), axis=1, keepdims=True)
    teacher = total / ops.maximum(count, 1.0)[..., None]
    teacher = ops.log_softmax(teacher / temperature)
    difference = teacher - ops.log_softmax(logits / temperature)
    divergence = ops.sum(ops.exp(teacher) * difference, axis=-1)
    is_reliable = ops.cast(count > 0, logits.dtype)
    return alpha * cross_entropy + beta * temperature**2 * is_reliable * divergence


def label_probabilities(
    y_true: Tensor, y_pred: Tensor, wanted: str, remedy: str
) -> Tensor:
    """The labels as probabilities `(batch, classes)`; NaN for a label that is of no
    class.

    Args:
        y_true: Tensor: integer labels `(batch,)` or `(batch, 1)`, or probabilities
            `(batch, classes)`.
        y_pred: Tensor `(batch, number, classes)`.
        wanted: String, what `y_pred` must be, for an error.
        remedy: String, how to get it, a sentence.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if len(y_pred.shape) != 3:
        raise ValueError(
            f"`y_pred` must be {wanted}. Received: shape {tuple(y_pred.shape)}. "
            f"{remedy}"
        )
    classes, shape = y_pred.shape[-1], tuple(y_true.shape)
    if len(shape) == 2 and shape[1] == classes and classes > 1:
        return y_true
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        labels = ops.reshape(y_true, (-1,))
        numbers = ops.cast(labels, "int32")
        is_inside = ops.logical_and(numbers >= 0, numbers < classes)
        is_integer = ops.cast(numbers, labels.dtype) == labels
        is_class = ops.logical_and(is_inside, is_integer)[:, None]
        numbers = ops.clip(numbers, 0, classes - 1)
        one_hot = ops.one_hot(numbers, classes, dtype=y_pred.dtype)
        # Compiled code cannot raise an error.
        return ops.where(is_class, one_hot, ops.full_like(one_hot, float("nan")))
    raise ValueError(
        "`y_true` must be integer labels (batch,), or probabilities (batch, "
        f"{classes}). Received: shape {shape}. They are those of samples, for outputs "
        f"of shape {tuple(y_pred.shape)}: leave out an axis of steps or heads."
    )

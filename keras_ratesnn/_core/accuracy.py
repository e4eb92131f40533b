"""Keras' accuracy functions, for labels in any of its formats."""

from typing import Literal, TypeAlias

import keras

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Tensor

Labels: TypeAlias = Literal["auto", "sparse", "categorical", "binary"]
LABELS: tuple[Labels, ...] = ("auto", "sparse", "categorical", "binary")


def is_right(
    y_true: Tensor, outputs: Tensor, labels: Labels, threshold: float = 0.5
) -> Tensor:
    """Whether each sample is correct, according to Keras' accuracy functions."""
    labels = _labels_of(y_true, outputs) if labels == "auto" else labels
    if getattr(y_true.shape, "rank", 0) is not None:
        _check_shape(tuple(y_true.shape), tuple(outputs.shape), labels)
    if labels == "binary":
        return keras.metrics.binary_accuracy(y_true, outputs, threshold=threshold)
    if labels == "sparse":
        return keras.metrics.sparse_categorical_accuracy(y_true, outputs)
    return keras.metrics.categorical_accuracy(y_true, outputs)


def _labels_of(y_true: Tensor, outputs: Tensor) -> Labels:
    """The format of labels, from the shapes of labels and outputs of one step."""
    if outputs.shape[-1] == 1:
        return "binary"
    return (
        "sparse"
        if len(y_true.shape) < len(outputs.shape) or y_true.shape[-1] == 1
        else "categorical"
    )


def _check_shape(shape, outputs, labels):
    """Raises ValueError if labels of this shape would be compared with other outputs
    than their own."""
    has_axis_of_classes = labels == "categorical" or (
        labels == "binary" and outputs[-1] != 1
    )
    fitting = [outputs] if has_axis_of_classes else [outputs[:-1], (*outputs[:-1], 1)]
    if not any(checks.fits(shape, fitting_shape) for fitting_shape in fitting):
        wanted = " or ".join(str(fitting_shape) for fitting_shape in fitting)
        raise ValueError(
            f"`y_true`, the labels, must have the shape {wanted} for outputs "
            f"{outputs}. Received: shape {shape}."
        )

"""Keras' accuracy functions, for labels in any of its formats."""

from typing import Literal, TypeAlias

import keras

from keras_ratesnn._core.annotations import Tensor

Labels: TypeAlias = Literal["auto", "sparse", "categorical", "binary"]
LABELS: tuple[Labels, ...] = ("auto", "sparse", "categorical", "binary")


def is_right(y_true: Tensor, outputs: Tensor, labels: Labels, threshold: float = 0.5) -> Tensor:
    """Whether each sample is correct, according to Keras' accuracy functions."""
    samples, wanted = _samples(y_true), _samples(outputs)
    if samples != wanted and None not in (samples, wanted):
        raise ValueError(
            f"`y_true` must have a label for each of the {wanted} samples of `y_pred`. Received: shape {tuple(y_true.shape)}."
        )
    labels = _labels_of(y_true, outputs) if labels == "auto" else labels
    if labels == "binary":
        return keras.metrics.binary_accuracy(y_true, outputs, threshold=threshold)
    if labels == "sparse":
        return keras.metrics.sparse_categorical_accuracy(y_true, outputs)
    return keras.metrics.categorical_accuracy(y_true, outputs)


def _labels_of(y_true: Tensor, outputs: Tensor) -> Labels:
    """The format of labels, from the shapes of labels and outputs of one step."""
    if outputs.shape[-1] == 1:
        return "binary"
    return "sparse" if len(y_true.shape) < len(outputs.shape) or y_true.shape[-1] == 1 else "categorical"


def _samples(tensor: Tensor) -> int | None:
    """The number of samples; `None` if it is unknown."""
    if getattr(tensor.shape, "rank", 0) is None:
        return None
    return tensor.shape[0] if len(tensor.shape) else 0

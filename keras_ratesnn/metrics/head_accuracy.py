"""The accuracy of one head of a network with several."""

from typing import Any

import keras

from keras_ratesnn._core import checks, registry
from keras_ratesnn._core.accuracy import is_right
from keras_ratesnn._core.annotations import Config, Tensor


@registry.register
class HeadAccuracy(keras.metrics.MeanMetricWrapper):
    """The accuracy of one head of a network with outputs `(batch, heads, classes)`, see
    `keras_ratesnn.models.add_branches`.

    Example:

    >>> metric = HeadAccuracy()
    >>> metric.update_state(
    ...     [0, 1], [[[0.1, 0.9], [0.9, 0.1]], [[0.1, 0.9], [0.9, 0.1]]]
    ... )
    >>> float(metric.result())
    0.5

    Args:
        head: Integer, the index of the head. Defaults to `-1`, the network's own
            output.
        name: String, the name of the metric. Defaults to `"accuracy"`.
        dtype: The dtype of the computation. Defaults to `None`, Keras' default float
            type.

    Call arguments:
        y_true: Tensor: integer labels `(batch,)`, or probabilities `(batch, classes)`.
        y_pred: Tensor `(batch, heads, classes)`.
        sample_weight: Tensor `(batch,)`. Defaults to `None`.

    Raises:
        TypeError: If `head` is not an integer.
        ValueError: If outputs have no such head, or labels another number of samples.
    """

    def __init__(
        self, head: int = -1, name: str = "accuracy", dtype: Any = None
    ) -> None:
        super().__init__(self._head_accuracy, name=name, dtype=dtype)
        self.head = checks.integer("head", head)

    def _head_accuracy(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true = checks.tensor("y_true", y_true)
        y_pred = checks.tensor("y_pred", y_pred)
        shape = tuple(y_pred.shape)
        # Some backends take an index out of bounds for the last one.
        if len(shape) != 3 or (
            shape[1] is not None and not -shape[1] <= self.head < shape[1]
        ):
            raise ValueError(
                "`y_pred` must be the logits of all heads, (batch, heads, classes), "
                f"and have the head={self.head}. Received: shape {shape}. "
                "keras_ratesnn.models.add_branches makes a network with such outputs."
            )
        return is_right(y_true, y_pred[:, self.head], "auto")

    def get_config(self) -> Config:
        return {"name": self.name, "dtype": self.dtype, "head": self.head}

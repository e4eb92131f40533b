"""The accuracy of one head of a network with several."""

from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import registry
from keras_ratesnn._core.annotations import Config, Tensor
from keras_ratesnn.metrics._accuracy import is_right


@registry.register
class HeadAccuracy(keras.metrics.MeanMetricWrapper):
    """The accuracy of one head of a network with outputs `(batch, heads, classes)`, see `keras_ratesnn.models.add_branches`.

    Example:

    >>> metric = HeadAccuracy()
    >>> metric.update_state([0, 1], [[[0.1, 0.9], [0.9, 0.1]], [[0.1, 0.9], [0.9, 0.1]]])
    >>> float(metric.result())
    0.5

    Args:
        head: Integer, the index of the head. Defaults to `-1`, the network's own output.
        name: String, the name of the metric. Defaults to `"accuracy"`.
        dtype: The dtype of the computation. Defaults to `None`, Keras' default float type.

    Call arguments:
        y_true: Tensor: integer labels `(batch,)`, or probabilities `(batch, classes)`.
        y_pred: Tensor `(batch, heads, classes)`.
        sample_weight: Tensor `(batch,)`. Defaults to `None`.

    Raises:
        TypeError: If `head` is not an integer.
    """

    def __init__(self, head: int = -1, name: str = "accuracy", dtype: Any = None) -> None:
        if isinstance(head, bool) or not isinstance(head, int):
            raise TypeError(f"`head` must be an integer. Received: head={head!r} of type {type(head).__name__}.")
        super().__init__(self._of_head, name=name, dtype=dtype)
        self.head = head

    def _of_head(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        return is_right(y_true, y_pred[:, self.head], "auto")

    def get_config(self) -> Config:
        return {"name": self.name, "dtype": self.dtype, "head": self.head}

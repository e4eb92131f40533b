"""Metrics of the outputs of every step, for models with `return_sequences=True`."""

from typing import Any, Literal, TypeAlias

import keras
from keras import ops

from keras_ratesnn._core import checks, registry, time_axis
from keras_ratesnn._core.annotations import Config, Tensor

Labels: TypeAlias = Literal["auto", "sparse", "categorical", "binary"]
LABELS: tuple[Labels, ...] = ("auto", "sparse", "categorical", "binary")


@registry.register
class AnytimeAccuracy(keras.metrics.Metric):
    """The accuracy after each step: of the mean of the outputs up to it, which is the output with that many time steps.

    It tells how early a `SpikingModel` could stop. The model must have `return_sequences=True`, and a loss that takes a
    sequence, for example `keras_ratesnn.losses.TET`.

    `result` is a dict of `NAME_t1` to `NAME_tT`, which `fit` and `evaluate(..., return_dict=True)` show one by one; in
    `history` they are `accuracy_t1`, `val_accuracy_t1` and so on. A callback can watch one: `EarlyStopping("val_accuracy_t2")`.

    Example:

    >>> metric = AnytimeAccuracy(timesteps=2)
    >>> metric.update_state([0, 1], [[[0.9, 0.1], [0.0, 0.3]], [[0.6, 0.4], [0.2, 0.9]]])
    >>> {name: float(value) for name, value in metric.result().items()}
    {'accuracy_t1': 0.5, 'accuracy_t2': 1.0}

    Args:
        timesteps: Integer T >= 1, the `timesteps` of the model.
        labels: What labels are. `"sparse"`: integers, the numbers of the classes. `"categorical"`: one-hot vectors. `"binary"`:
            a 0 or 1 for each output, which is compared with the threshold. `"auto"`: what Keras takes `"accuracy"` for, by
            the shapes: `"binary"` if there is one output, `"sparse"` if labels have no axis of classes or one of length 1,
            else `"categorical"`. Defaults to `"auto"`.
        threshold: Float, from which on a binary output says 1: 0 for logits. Defaults to `0.5`.
        name: String, with which the names of the results begin; metrics of several outputs need different ones. Defaults to
            `"accuracy"`.
        dtype: The dtype of the computation. Defaults to `None`, for Keras' float type.

    Raises:
        TypeError: If `timesteps` is no integer or `threshold` no number.
        ValueError: If `timesteps` is not >= 1, `labels` is unknown, or outputs have not T steps.
    """

    def __init__(
        self, timesteps: int, labels: Labels = "auto", threshold: float = 0.5, name: str = "accuracy", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.timesteps = checks.positive_integer("timesteps", timesteps, advice="It is that of the SpikingModel.")
        self.labels = checks.one_of("labels", labels, LABELS)
        self.threshold = checks.real("threshold", threshold, advice="A binary output says 1 from there on.")
        self._means = [keras.metrics.Mean(f"t{t}", dtype=dtype) for t in range(1, self.timesteps + 1)]

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        """Counts a batch.

        Args:
            y_true: Tensor `(batch, ...)`, labels.
            y_pred: Tensor `(batch, T, classes)`, or with axes between the two last: the output of every step.
            sample_weight: Tensor that broadcasts to `(batch,)`, or to labels of several to a sample. Defaults to `None`.
        """
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        self._check_steps(y_pred)
        sums = ops.cumsum(time_axis.widen(y_pred), axis=1)
        for t, mean in enumerate(self._means):
            mean.update_state(self._is_right(y_true, sums[:, t] / (t + 1)), sample_weight)

    def result(self) -> dict[str, Tensor]:
        """The dict of accuracies after each step."""
        return {f"{self.name}_{mean.name}": mean.result() for mean in self._means}

    def _is_right(self, y_true: Tensor, outputs: Tensor) -> Tensor:
        """What Keras' accuracies say of each sample."""
        labels = _labels_of(y_true, outputs) if self.labels == "auto" else self.labels
        if labels == "binary":
            return keras.metrics.binary_accuracy(y_true, outputs, threshold=self.threshold)
        if labels == "sparse":
            return keras.metrics.sparse_categorical_accuracy(y_true, outputs)
        return keras.metrics.categorical_accuracy(y_true, outputs)

    def _check_steps(self, y_pred: Tensor) -> None:
        shape = tuple(y_pred.shape)
        if len(shape) < 3 or shape[1] not in (None, self.timesteps):
            raise ValueError(
                f"`y_pred` must be the outputs of each of timesteps={self.timesteps}, (batch, {self.timesteps}, classes). "
                f"Received: shape {shape}. Make the SpikingModel with return_sequences=True, and the metric with its timesteps."
            )

    def get_config(self) -> Config:
        return {**super().get_config(), "timesteps": self.timesteps, "labels": self.labels, "threshold": self.threshold}


def _labels_of(y_true: Tensor, outputs: Tensor) -> Labels:
    """The kind of labels, by the shapes of labels and outputs of one step."""
    if outputs.shape[-1] == 1:
        return "binary"
    return "sparse" if len(y_true.shape) < len(outputs.shape) or y_true.shape[-1] == 1 else "categorical"

"""The accuracy after each step, for models with `return_sequences=True`."""

from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import checks, keras_internals, registry, time_axis
from keras_ratesnn._core.accuracy import LABELS, Labels, is_right
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._core.configs import ConfigOfAttributes

_MOST_STEPS = 10_000


@registry.register
class AnytimeAccuracy(ConfigOfAttributes, keras.metrics.Metric):
    """The accuracy after each step: that of the mean output so far, which is the output
    with that number of time steps.

    It shows how early a `SpikingModel` could stop. The model must have
    `return_sequences=True`, and a loss that takes a sequence, for example
    `keras_ratesnn.losses.TET`.

    `result` is a dict of `NAME_t1` to `NAME_tT`, which `fit` and `evaluate(...,
    return_dict=True)` show separately; in `history` they are `accuracy_t1`,
    `val_accuracy_t1` etc. A callback can monitor one:
    `EarlyStopping("val_accuracy_t2")`.

    Example:

    >>> metric = AnytimeAccuracy(timesteps=2)
    >>> metric.update_state(
    ...     [0, 1], [[[0.9, 0.1], [0.0, 0.3]], [[0.6, 0.4], [0.2, 0.9]]]
    ... )
    >>> {name: float(value) for name, value in metric.result().items()}
    {'accuracy_t1': 0.5, 'accuracy_t2': 1.0}

    Args:
        timesteps: Integer T >= 1, the `timesteps` of the model.
        labels: The format of labels. `"sparse"`: integer class indices.
            `"categorical"`: one-hot vectors. `"binary"`: a 0 or 1 for each output,
            which is compared with the threshold. `"auto"`: chosen by shape, like
            `"accuracy"` in Keras: `"binary"` if there is one output, `"sparse"` if
            labels have no class axis or one of length 1, else `"categorical"`. Defaults
            to `"auto"`.
        threshold: Float, a binary output above it means 1; use 0 for logits. Defaults
            to `0.5`.
        name: String, the prefix of the result names; metrics of several outputs need
            different names. Defaults to `"accuracy"`.
        dtype: The dtype of the computation. Defaults to `None`, Keras' default float
            type.

    Raises:
        TypeError: If `timesteps` is not an integer or `threshold` not a number.
        ValueError: If `timesteps` is not from 1 to 10,000, `labels` is unknown, or
            outputs do not have T steps.
    """

    in_config = "timesteps", "labels", "threshold"

    def __init__(
        self,
        timesteps: int,
        labels: Labels = "auto",
        threshold: float = 0.5,
        name: str = "accuracy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.timesteps = checks.positive_integer(
            "timesteps", timesteps, advice="It is the `timesteps` of the SpikingModel."
        )
        if self.timesteps > _MOST_STEPS:
            raise ValueError(
                f"`timesteps` must be at most {_MOST_STEPS}, since each step has an "
                f"accuracy of its own. Received: timesteps={timesteps}. Give it the "
                "`timesteps` of the SpikingModel."
            )
        self.labels = checks.one_of("labels", labels, LABELS)
        self.threshold = checks.real(
            "threshold", threshold, advice="A binary output above it means 1."
        )
        self._means = [
            keras.metrics.Mean(f"t{t}", dtype=dtype)
            for t in range(1, self.timesteps + 1)
        ]

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Updates the metric with a batch.

        Args:
            y_true: Tensor `(batch, ...)`, labels.
            y_pred: Tensor `(batch, T, classes)`, or with further axes before the last:
                the output of every step. With a Keras mask, means run over the steps
                that are not masked, and an output counts from the first of these on.
            sample_weight: Tensor that broadcasts to `(batch,)`, or to the labels if a
                sample has several. Defaults to `None`.
        """
        y_true = checks.tensor("y_true", y_true)
        y_pred = checks.tensor("y_pred", y_pred)
        self._check_steps(y_pred)
        outputs, mask = time_axis.widen(y_pred), keras_internals.mask_of(y_pred)
        counts = ops.ones_like(outputs[..., :1])
        if mask is not None:
            is_valid = time_axis.cast(mask, counts.dtype)
            counts = counts * time_axis.as_rows(is_valid, counts)
            outputs = ops.where(counts > 0.0, outputs, 0.0)
        sums = ops.cumsum(outputs, axis=1)
        counts = ops.maximum(ops.cumsum(counts, axis=1), 1.0)
        for t, mean in enumerate(self._means):
            weight = sample_weight
            if mask is not None:
                weight = _where_seen(mask[:, : t + 1], sample_weight, mean.dtype)
            output = sums[:, t] / counts[:, t]
            right = is_right(y_true, output, self.labels, self.threshold)
            mean.update_state(right, weight)

    def result(self) -> dict[str, Tensor]:
        """A dict of the accuracies after each step."""
        return {f"{self.name}_{mean.name}": mean.result() for mean in self._means}

    def _check_steps(self, y_pred: Tensor) -> None:
        shape = tuple(y_pred.shape)
        if len(shape) < 3 or shape[1] not in (None, self.timesteps):
            raise ValueError(
                f"`y_pred` must be the outputs of each of timesteps={self.timesteps}, "
                f"(batch, {self.timesteps}, classes). Received: shape {shape}. Use a "
                "SpikingModel with return_sequences=True, and give the metric its "
                "timesteps."
            )


def _where_seen(mask, sample_weight, dtype):
    """The weight of each label: that of its sample, or 0 if the mask `(batch, steps,
    ...)` leaves out all steps so far."""
    seen = ops.cast(ops.any(mask, axis=1), dtype)
    if sample_weight is None:
        return seen
    weight = ops.cast(ops.convert_to_tensor(sample_weight), dtype)
    return time_axis.as_rows(seen, weight) * time_axis.as_rows(weight, seen)

"""Answers for labelled samples after each step, on which a threshold for stopping is
calibrated."""

from typing import Any

import numpy as np
from keras import ops

from keras_ratesnn._core import checks
from keras_ratesnn._model import data_checks


class Answers:
    """How sure the answer of each sample is after each step, and whether it is right.

    Args:
        y: Labels: class indices `(samples,)` or `(samples, 1)`, or one-hot vectors
            `(samples, classes)`.
        samples: Integer, the number of samples.
        classes: Integer.
        timesteps: Integer T.

    Attributes:
        certainty: Array `(samples, T)` of floats or integers.
        right: Boolean array `(samples, T)`.
        last: Integer array `(samples,)`: after how many steps each sample ends. What
            follows does not matter.

    Raises:
        ValueError: If `y` are no labels, or not one for each sample.
    """

    def __init__(self, y: Any, samples: int, classes: int, timesteps: int) -> None:
        self._labels = _class_indices(y, samples, classes)
        self.certainty = np.zeros((samples, timesteps))
        self.right = np.zeros((samples, timesteps), bool)
        self.last = np.zeros(samples, "int32")

    def record(
        self,
        certainty: np.ndarray,
        outputs: np.ndarray,
        samples: np.ndarray,
        steps: int,
    ) -> np.ndarray:
        """Adds the answers of some samples after so many steps. Returns that none of
        them stops, `(rows,)`."""
        self.certainty[samples, steps - 1] = certainty
        self.right[samples, steps - 1] = outputs.argmax(axis=1) == self._labels[samples]
        self.last[samples] = steps
        return np.zeros(len(samples), bool)


def _class_indices(y, samples, classes):
    data_checks.check_numbers(y)
    y = np.asarray(ops.convert_to_numpy(y))
    if y.shape == (samples, classes):
        return y.argmax(axis=1)
    if y.shape not in ((samples,), (samples, 1)):
        raise ValueError(
            f"`y` must be class indices of shape ({samples},), or one-hot vectors of "
            f"shape ({samples}, {classes}), as many as `x` has samples. Received: an "
            f"array of shape {y.shape}."
        )
    checks.labels("y", y, np.empty((0, classes)))
    return y.reshape(-1).astype("int64")
